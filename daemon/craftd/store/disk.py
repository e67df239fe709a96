"""Files that are there to stay, and what the system says when one cannot be written, as ours."""

from __future__ import annotations

import errno
import fcntl
import os
import sys
from collections.abc import Callable
from pathlib import Path

from craft_protos.reasons import CraftError

Write = Callable[[int, memoryview], int]  # os.write, or a test's full disk

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def unwritable(folder: Path, what: str, exc: OSError) -> CraftError:
    """DISK_FULL where room is what lacks, else STORAGE_FAILED. `what` could not be written."""
    message = f"{folder}: {what} could not be written: {exc.strerror or exc}"
    if exc.errno in _FULL:
        return CraftError("DISK_FULL", message, "free some space there")
    return CraftError("STORAGE_FAILED", message, "see that the folder is there, its disk is sound and craftd may write")


def save(path: Path, data: bytes, write: Write) -> None:
    """A file whose bytes, though not its name, outlive a power failure. Raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        write_whole(descriptor, data, write)
        sync_file(descriptor)
    finally:
        os.close(descriptor)


def write_whole(descriptor: int, data: bytes, write: Write) -> None:
    """`write` may take less than it is given, as os.write does."""
    left = memoryview(data)
    while left:
        left = left[write(descriptor, left) :]


def sync_file(descriptor: int) -> None:
    """On return its bytes outlive a power failure."""
    if sys.platform == "darwin":  # fsync alone stops at the drive's cache
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fsync(descriptor)


def make_folder(folder: Path) -> None:
    """One that stays, and so does its name. Raises OSError."""
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # several may be the first
        sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """On return the names of its files outlive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
