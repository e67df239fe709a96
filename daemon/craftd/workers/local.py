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
from collections.abc import Mapping
from pathlib import Path

from craft_protos import frames
from craft_protos.settings import WorkerSettings
from craft_protos.worker_pb2 import FromWorker, ToWorker

from craftd.workers.connection import Ending

_log = logging.getLogger("craft.worker")
_LONGEST_LINE_BYTES = 64 << 10
_LAST_WORDS_S = 1.0
_OWN_GROUP = Path("/proc/self/cgroup")
_GROUPS = Path("/sys/fs/cgroup")
_MACHINE = Path("/proc/vmstat")
# Signals that a program's own fault raises; others (KILL, TERM, INT, HUP, ...) come from outside.
_OWN_SIGNALS = {
    signal.SIGSEGV,
    signal.SIGABRT,
    signal.SIGBUS,
    signal.SIGILL,
    signal.SIGFPE,
    signal.SIGTRAP,
    signal.SIGSYS,
}


class LocalConnection:
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
        self._oom_kills = _oom_kills()
        self._logging = asyncio.create_task(self._log_stderr(), name="worker stderr")

    @classmethod
    async def start(cls, settings: WorkerSettings, files_dir: Path, sharing: int = 1) -> LocalConnection:
        """Spawn it in a process group of its own; the end of its socket will end it. Raises OSError."""
        _make_folder(files_dir)
        ours, theirs = socket.socketpair()
        process = None
        try:
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    *_command(settings, theirs.fileno(), files_dir, sharing),
                    pass_fds=[theirs.fileno()],
                    process_group=0,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.DEVNULL,
                    stderr=asyncio.subprocess.PIPE,
                    limit=_LONGEST_LINE_BYTES,
                )
            reader, writer = await asyncio.open_unix_connection(sock=ours)
        except BaseException:
            ours.close()
            if process is not None:
                _kill_group(process.pid)
            raise
        return cls(process, reader, writer, files_dir)

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, frame: ToWorker) -> None:
        if not self._writer.is_closing():
            self._writer.write(frames.encode(frame))

    async def receive(self) -> FromWorker | None:
        return await frames.read(self._reader, FromWorker)

    async def stage(self, files: Mapping[str, Path]) -> None:
        for sha256, source in files.items():
            if self._linked.get(sha256) != source:
                self._link(sha256, source)

    def _link(self, sha256: str, source: Path) -> None:
        link = self._files_dir / sha256
        temporary = link.with_name(f".{sha256}.tmp")
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(source.resolve())
        temporary.replace(link)
        self._linked[sha256] = source

    async def collect(self, sha256: str, destination: Path) -> None:
        made = self._files_dir / sha256
        self._linked.pop(sha256, None)
        if made.is_symlink():  # it made again what it was given
            shutil.copyfile(made, destination)
        else:
            shutil.move(made, destination)

    async def discard(self, sha256: str) -> None:
        made = self._files_dir / sha256
        if not made.is_symlink():
            made.unlink(missing_ok=True)

    def kill(self) -> None:
        if self._process.returncode is None:
            _kill_group(self._process.pid)

    async def wait(self) -> Ending:
        code = await self._process.wait()
        await asyncio.wait({self._logging}, timeout=_LAST_WORDS_S)  # what it started may hold its stderr open
        self._logging.cancel()
        self._writer.close()
        ended = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        was_for_memory = -code == signal.SIGKILL and _oom_kills() > self._oom_kills
        if was_for_memory:
            ended += " (out of memory)"
        how = f"{ended}: {self._last_lines[-1]}" if self._last_lines else ended
        return Ending(how, is_own_doing=was_for_memory or code > 0 or -code in _OWN_SIGNALS)

    async def _log_stderr(self) -> None:
        """Copies what the worker says into the log, until its stderr ends or cannot be read any more."""
        stream = self._process.stderr
        assert stream is not None
        with contextlib.suppress(OSError):
            while line := await _line(stream):
                text = line.decode("utf-8", "replace").rstrip()
                if text:
                    self._last_lines.append(text)
                    _log.info("worker says", extra={"pid": self.pid, "line": text})


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
        os.killpg(pid, signal.SIGKILL)


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


def _command(settings: WorkerSettings, descriptor: int, files_dir: Path, sharing: int) -> list[str]:
    return [
        *(sys.executable, "-m", settings.module),
        *("--fd", str(descriptor)),
        *("--files", str(files_dir)),
        *("--device", settings.device),
        *("--precision", settings.precision),
        *("--threads", str(settings.threads)),
        *("--max-rows", str(settings.max_rows)),
        *("--offload", settings.offload),
        *("--sharing", str(sharing)),
    ]


def _oom_kills() -> int:
    """How often the kernel's OOM killer has struck so far, in this process's control group and on the machine.

    Only the difference of two readings means anything; 0 where the system does not tell (macOS).
    """
    return _oom_count(_own_control_group() / "memory.events") + _oom_count(_MACHINE)


def _own_control_group() -> Path:
    """Version 2's one hierarchy, which is the line that begins with `0::`."""
    for line in _lines_of(_OWN_GROUP):
        if line.startswith("0::/"):
            return _GROUPS / line.removeprefix("0::/")
    return _GROUPS


def _oom_count(file: Path) -> int:
    for line in _lines_of(file):
        key, _, value = line.partition(" ")
        if key == "oom_kill" and value.isdigit():
            return int(value)
    return 0


def _lines_of(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return []
