"""The socket's place: a folder that is ours alone, and a name in it that is only ever ours to remove.

gRPC removes the path that it bound, whoever's socket lies there by then. So it binds a name
of its own, which is renamed: the rename replaces a stale socket in one step, gRPC's own
clean-up finds nothing, and ours looks at the inode first.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

from craft_protos.reasons import CraftError


class Endpoint:
    """Only for the holder of the daemon's lock."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._inode = (0, 0)

    @property
    def address(self) -> str:
        return f"unix:{self._path}"

    def publish(self, bind: Callable[[str], None]) -> None:
        """Have `bind` listen on the socket, 0600 in a 0700 folder. Raises ALREADY_RUNNING, CONFIG_INVALID."""
        _claim_folder(self._path.parent)
        _check_free(self._path)
        own = self._path.with_name(f"{os.getpid()}.sock")
        own.unlink(missing_ok=True)
        previous = os.umask(0o177)
        try:
            bind(f"unix:{own}")
        finally:
            os.umask(previous)
        self._inode = _inode(own)
        own.rename(self._path)

    def withdraw(self) -> None:
        """Remove the socket, if it's still the one that was published."""
        try:
            if _inode(self._path) == self._inode:
                self._path.unlink()
        except FileNotFoundError:
            return


def _claim_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        status = folder.lstat()
    except OSError as exc:
        raise _bad(folder, f"cannot be made: {exc.strerror}") from exc
    if status.st_uid != os.getuid() or status.st_mode & stat.S_ISVTX:
        raise _bad(folder, "belongs to others too")
    if not stat.S_ISLNK(status.st_mode) and status.st_mode & 0o077:
        folder.chmod(0o700)


def _check_free(path: Path) -> None:
    """A live socket is somebody's, even while the lock of this data folder is ours."""
    if not path.exists():
        return
    if not stat.S_ISSOCK(path.stat().st_mode):
        raise _bad(path, "is not a socket")
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return
    raise CraftError(
        "ALREADY_RUNNING",
        f"{path}: another daemon answers here, though this one holds the data folder's lock",
        "was the data folder replaced while it ran? end that daemon, or set CRAFT_RUNTIME_DIR",
    )


def _bad(path: Path, why: str) -> CraftError:
    return CraftError("CONFIG_INVALID", f"{path}: {why}", "set CRAFT_RUNTIME_DIR to a folder of your own")


def _inode(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_dev, status.st_ino
