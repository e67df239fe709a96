"""Structured logs: one JSON object a line, in a file that is rotated, and to who watches.

The standard library's logging, since what libraries log comes that way in any case.
"""

from __future__ import annotations

import asyncio
import json
import logging
import logging.handlers
from collections import deque
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

from craft_protos import records

LARGEST_FILE_BYTES = 8 << 20
_KEPT_FILES = 3
_MOST_PENDING = 1000
_STANDARD = set(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


class JsonLines(logging.Formatter):
    """The head, whatever came as `extra`, the traceback."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            records.TIME: datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            records.LEVEL: record.levelname.lower(),
            records.LOGGER: record.name,
            records.EVENT: record.getMessage(),
        }
        line |= {name: value for name, value in vars(record).items() if name not in _STANDARD}
        if record.exc_info:
            line[records.TRACEBACK] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class ReadableLines(logging.Formatter):
    """`time level logger event key=value ...`, as `craft logs` shows it."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="seconds")
        more = [f"{name}={value}" for name, value in vars(record).items() if name not in _STANDARD]
        line = " ".join([time, record.levelname.lower(), record.name, record.getMessage(), *more])
        line = "".join(c if c.isprintable() else " " for c in line)
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class Log(logging.handlers.RotatingFileHandler):
    """The daemon's log file. Watchers are fed on the event loop that `open_log` was called in."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        super().__init__(path, maxBytes=LARGEST_FILE_BYTES, backupCount=_KEPT_FILES, encoding="utf-8")
        self.setFormatter(JsonLines())
        self._path = path
        self._loop = asyncio.get_running_loop()
        self._watchers: list[asyncio.Queue[str | None]] = []

    def shouldRollover(self, record: logging.LogRecord) -> bool:
        """Whether the file is full, which it may be by one line more; the library would format every line twice."""
        return self.stream is not None and self.stream.tell() >= self.maxBytes

    def emit(self, record: logging.LogRecord) -> None:
        super().emit(record)
        if self._watchers:
            self._loop.call_soon_threadsafe(self._feed, self.format(record))

    async def watch(self, tail: int, *, follow: bool) -> AsyncIterator[str]:
        """The last `tail` lines; with `follow`, each new one until the daemon stops."""
        watcher: asyncio.Queue[str | None] = asyncio.Queue(_MOST_PENDING)
        past = self._tail(tail)
        if follow:
            self._watchers.append(watcher)
        try:
            for line in past:
                yield line
            while follow and (new := await watcher.get()) is not None:
                yield new
        finally:
            if follow:
                self._watchers.remove(watcher)

    def end_watches(self) -> None:
        """The daemon stops: whoever follows gets an end."""
        for watcher in self._watchers:
            if watcher.full():
                watcher.get_nowait()
            watcher.put_nowait(None)

    def _feed(self, line: str) -> None:
        for watcher in self._watchers:
            if not watcher.full():  # who reads too slowly misses lines; the file has them
                watcher.put_nowait(line)

    def _tail(self, count: int) -> list[str]:
        lines: deque[str] = deque(maxlen=min(count, _MOST_PENDING))
        for path in (self._path.with_name(f"{self._path.name}.1"), self._path):
            if count and path.exists():
                with path.open(encoding="utf-8", errors="replace") as file:
                    lines.extend(line.rstrip("\n") for line in file)
        return list(lines)


def open_log(path: Path, level: str) -> Log:
    """Make `path` the destination of everything that is logged."""
    log = Log(path)
    root = logging.getLogger()
    root.addHandler(log)
    root.setLevel(level.upper())
    return log


def log_to_stderr() -> None:
    """Besides the file, for whoever runs the daemon in a terminal or a container."""
    handler = logging.StreamHandler()
    handler.setFormatter(ReadableLines())
    logging.getLogger().addHandler(handler)


def close_log(log: Log) -> None:
    logging.getLogger().removeHandler(log)
    log.close()
