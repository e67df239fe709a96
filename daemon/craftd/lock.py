"""One daemon to a data folder: an flock that also says who has it and where it answers."""

from __future__ import annotations

import fcntl
import json
import os
import time
from pathlib import Path
from types import TracebackType

from craft_protos.reasons import CraftError
from craft_protos.version import __version__

_PATIENCE_S = 0.5  # for a winner that hasn't written its name yet
_LOOK_AGAIN_S = 0.01


class DaemonLock:
    """Held from before the socket is bound until after it is gone. Raises ALREADY_RUNNING."""

    def __init__(self, path: Path, address: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            os.close(self._descriptor)
            raise _already_running(path) from exc
        self._write({"pid": os.getpid(), "address": address, "version": __version__})

    def __enter__(self) -> DaemonLock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)

    def _write(self, who: dict[str, object]) -> None:
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, json.dumps(who).encode(), 0)


def _already_running(path: Path) -> CraftError:
    pid = _winner(path)
    who = f"craftd (pid {pid})" if pid else "another craftd"
    return CraftError("ALREADY_RUNNING", f"{who} has the data folder {path.parent}", "use it, or `craft daemon stop`")


def _winner(path: Path) -> int:
    """The pid in the lock, 0 if nobody has signed it."""
    until = time.monotonic() + _PATIENCE_S
    while time.monotonic() < until:
        try:
            pid = int(json.loads(path.read_bytes())["pid"])
            os.kill(pid, 0)
            return pid
        except (OSError, ValueError, KeyError):
            time.sleep(_LOOK_AGAIN_S)
    return 0
