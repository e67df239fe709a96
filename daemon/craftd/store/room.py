"""Some bytes of the store's disk, kept so that what frees a full disk can be written down."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_BYTES = 4 << 20


class Room:
    """A file of no use but its size. Blocking."""

    def __init__(self, path: Path, size_bytes: int = _BYTES) -> None:
        self._path = path
        self._size_bytes = size_bytes

    def keep(self) -> bool:
        """Whether it is there: it is made where the disk has more than twice its size left."""
        with contextlib.suppress(OSError):
            if self._path.is_file() and self._path.stat().st_size == self._size_bytes:
                return True
            status = os.statvfs(self._path.parent)
            if status.f_bavail * status.f_frsize > 2 * self._size_bytes:
                self._make()
                return True
        return False

    def give(self) -> None:
        """Let others have it."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    def _make(self) -> None:
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            noise = os.urandom(1 << 16)  # holes would be no room, nor would what a disk can shrink
            for _ in range(0, self._size_bytes, len(noise)):
                os.write(descriptor, noise)
        finally:
            os.close(descriptor)
