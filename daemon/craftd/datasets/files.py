"""The datasets folder: each picture once, by its sha256, whole and on disk or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from craft_protos.reasons import CraftError

from craftd.store.disk import Write, make_folder, sync_file, sync_folder, unwritable, write_whole

_INCOMING = ".incoming-"
_OWN = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Received:
    path: Path
    sha256: str
    size_bytes: int


class Tray:
    """Where one upload's pictures lie until they are checked. Blocking."""

    def __init__(self, folder: Path, write: Write) -> None:
        self._folder = folder / f"{_INCOMING}{secrets.token_hex(8)}"
        self._write = write
        self._count = 0
        self._open: int | None = None
        self._digest = hashlib.sha256()

    def begin(self) -> None:
        make_folder(self._folder.parent)
        self._folder.mkdir(exist_ok=True, mode=0o700)
        self._digest = hashlib.sha256()
        self._open = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)

    def add(self, data: bytes) -> None:
        assert self._open is not None
        self._digest.update(data)
        write_whole(self._open, data, self._write)

    def end(self) -> Received:
        assert self._open is not None
        sync_file(self._open)
        size_bytes = os.fstat(self._open).st_size
        self._close()
        received = Received(self._path, self._digest.hexdigest(), size_bytes)
        self._count += 1
        return received

    def remove(self) -> None:
        """What cannot be removed now is swept at the next start."""
        self._close()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def _path(self) -> Path:
        return self._folder / str(self._count)

    def _close(self) -> None:
        if self._open is not None:
            os.close(self._open)
            self._open = None


class DatasetFiles:
    """Blocking; callers run it off the event loop. `write` is os.write, or a test's full disk."""

    def __init__(self, folder: Path, write: Write = os.write) -> None:
        self._folder = folder
        self._write = write

    def tray(self) -> Tray:
        return Tray(self._folder, self._write)

    def path(self, sha256: str) -> Path:
        return self._folder / sha256

    def publish(self, pictures: Iterable[Received]) -> None:
        """Give them their lasting names; on return they outlive a power failure. Raises DISK_FULL, STORAGE_FAILED."""
        try:
            for one in pictures:
                one.path.replace(self.path(one.sha256))
            sync_folder(self._folder)
        except OSError as exc:
            raise self.unwritable(exc) from exc

    def sweep(self, known: set[str], *, at_start: bool = False) -> int:
        """Remove pictures that no dataset has, and at the start uploads that were cut short. Returns how many."""
        if not self._folder.is_dir():
            return 0
        left = 0
        for path in self._folder.iterdir():
            if path.name.startswith(_INCOMING) and at_start:
                shutil.rmtree(path, ignore_errors=True)
                left += 1
            elif _OWN.fullmatch(path.name) and path.name not in known:
                with contextlib.suppress(OSError):
                    path.unlink()
                    left += 1
        return left

    def unwritable(self, exc: OSError) -> CraftError:
        """Whoever sends pictures need not know where they lie here."""
        return unwritable(Path("datasets"), "a picture", exc)
