"""The images folder: files appear in it whole and on disk, or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from craft_protos.reasons import CraftError

from craftd.images.image import EXTENSIONS
from craftd.store.disk import Write, make_folder, save, sync_folder, unwritable

CHUNK_BYTES = 1 << 20
_TEMPORARY = ".tmp-"
_AT_ONCE = 500
_SUFFIXES = {f".{extension}" for extension in EXTENSIONS.values()}


@dataclass(frozen=True)
class Swept:
    """How many files."""

    removed: int = 0
    set_aside: int = 0

    def __add__(self, other: Swept) -> Swept:
        return Swept(self.removed + other.removed, self.set_aside + other.set_aside)


class ImageFiles:
    """Blocking; callers run it off the event loop. `write` is os.write, or a test's full disk."""

    def __init__(self, folder: Path, write: Write = os.write) -> None:
        self._folder = folder
        self._write = write

    def save(self, name: str, data: bytes) -> None:
        """On return the file outlives a power failure. Raises DISK_FULL, STORAGE_FAILED, leaving nothing behind."""
        temporary = self._folder / (_TEMPORARY + name)
        try:
            make_folder(self._folder)
            save(temporary, data, self._write)
            temporary.rename(self._folder / name)
            sync_folder(self._folder)
        except OSError as exc:
            self._remove(temporary.name)
            self._remove(name)
            raise unwritable(self._folder, "the image", exc) from exc

    def chunks(self, name: str) -> Iterator[bytes]:
        """The file's bytes, CHUNK_BYTES at a time. Raises UNKNOWN_IMAGE where the file is gone."""
        try:
            with (self._folder / name).open("rb") as file:
                while chunk := file.read(CHUNK_BYTES):
                    yield chunk
        except FileNotFoundError as exc:
            raise CraftError("UNKNOWN_IMAGE", f"{self._folder / name}: the file is gone", "draw it again") from exc

    def delete(self, name: str) -> bool:
        """Whether it is gone now."""
        return self._remove(name)

    def older(self, than: float) -> Iterator[list[str]]:
        """Names of the files that were last changed before then (seconds since 1970), some hundreds at a time."""
        if not self._folder.is_dir():
            return
        with os.scandir(self._folder) as entries:
            files = (entry.name for entry in entries if entry.is_file() and entry.stat().st_mtime < than)
            while some := list(islice(files, _AT_ONCE)):
                yield some

    def sweep(self, names: Iterable[str]) -> Swept:
        """Files that no row knows: remove those that a crash left unfinished, move pictures aside, never away."""
        removed = set_aside = 0
        for name in names:
            if name.startswith(_TEMPORARY):
                removed += self._remove(name)
            elif Path(name).suffix in _SUFFIXES:
                set_aside += self._set_aside(self._folder / name)
        return Swept(removed, set_aside)

    @property
    def orphans(self) -> Path:
        """Where pictures go that the database knows nothing of: it may be a backup older than they are."""
        return self._folder / "orphaned"

    def _set_aside(self, path: Path) -> bool:
        """Whether it could be moved, which never costs another file."""
        with contextlib.suppress(OSError):
            self.orphans.mkdir(exist_ok=True, mode=0o700)
            if not (self.orphans / path.name).exists():
                path.rename(self.orphans / path.name)
                return True
        return False

    def _remove(self, name: str) -> bool:
        """What cannot be removed now is swept at the next start."""
        try:
            (self._folder / name).unlink(missing_ok=True)
        except OSError:
            return False
        return True


def sha256_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
