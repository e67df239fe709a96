"""A worker as a subprocess on this machine, at the other end of a socket pair."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import socket
import sys
from collections import deque
from pathlib import Path

from craft_protos import frames
from craft_protos.config import WorkerSettings
from craft_protos.worker_pb2 import FromWorker, ToWorker

_log = logging.getLogger("craft.worker")
_LONGEST_LINE_BYTES = 64 << 10


class LocalWorker:
    """The process, its socket, and its stderr (which goes to the log)."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        files_dir: Path,
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer
        self._files_dir = files_dir
        self._linked: dict[str, Path] = {}
        self._last_lines: deque[str] = deque(maxlen=1)
        self._logging = asyncio.create_task(self._log_stderr(), name="worker stderr")

    @classmethod
    async def start(cls, settings: WorkerSettings, files_dir: Path) -> LocalWorker:
        """Spawn it in a process group of its own; the end of its socket will end it."""
        _make_folder(files_dir)
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *_command(settings, theirs.fileno(), files_dir),
                pass_fds=[theirs.fileno()],
                process_group=0,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                limit=_LONGEST_LINE_BYTES,
            )
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        return cls(process, reader, writer, files_dir)

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, frame: ToWorker) -> None:
        if not self._writer.is_closing():
            self._writer.write(frames.encode(frame))

    async def receive(self) -> FromWorker | None:
        return await frames.read(self._reader, FromWorker)

    def put_file(self, sha256: str, source: Path) -> None:
        link = self._files_dir / sha256
        if self._linked.get(sha256) == source:
            return
        temporary = link.with_name(f".{sha256}.tmp")
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(source.resolve())
        temporary.replace(link)
        self._linked[sha256] = source

    def take_file(self, sha256: str, destination: Path) -> None:
        made = self._files_dir / sha256
        self._linked.pop(sha256, None)
        if made.is_symlink():  # it made again what it was given
            shutil.copyfile(made, destination)
        else:
            shutil.move(made, destination)

    def kill(self) -> None:
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
                os.killpg(self._process.pid, signal.SIGKILL)

    async def wait(self) -> str:
        code = await self._process.wait()
        await self._logging
        self._writer.close()
        ended = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return f"{ended}: {self._last_lines[-1]}" if self._last_lines else ended

    async def _log_stderr(self) -> None:
        stream = self._process.stderr
        assert stream is not None
        while line := await _line(stream):
            text = line.decode("utf-8", "replace").rstrip()
            if text:
                self._last_lines.append(text)
                _log.info("worker says", extra={"pid": self.pid, "line": text})


async def _line(stream: asyncio.StreamReader) -> bytes:
    """The next line, cut where it is endless; b"" at the end."""
    try:
        return await stream.readuntil(b"\n")
    except asyncio.IncompleteReadError as exc:
        return exc.partial
    except asyncio.LimitOverrunError as exc:
        return await stream.readexactly(exc.consumed)


def _make_folder(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)


def _command(settings: WorkerSettings, descriptor: int, files_dir: Path) -> list[str]:
    return [
        *(sys.executable, "-m", settings.module),
        *("--fd", str(descriptor)),
        *("--files", str(files_dir)),
        *("--device", settings.device),
        *("--precision", settings.precision),
        *("--threads", str(settings.threads)),
        *("--max-rows", str(settings.max_rows)),
    ]
