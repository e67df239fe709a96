"""A folder's files, found without opening or following anything that leads elsewhere."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from craftd.documents import File, irregular
from craftd.refusal import corrupt, unsafe_path

_MOST_ENTRIES = 20_000
_DEEPEST = 16


class Tree:
    """Everything below a folder, checked: regular files, and links that stay inside."""

    def __init__(self, folder: Path) -> None:
        """Raises UNSAFE_PATH, CORRUPT_FILE."""
        self._root = _resolved(folder)
        self._areas = _areas(self._root)
        self._files = list(self._walk())

    def part(self, folder: str) -> list[File] | None:
        """The files that lie directly in a folder ("" for the root), by name; None: there is no such folder."""
        place = _resolved(self._root / folder)
        if not place.is_dir():
            return None
        prefix = f"{folder}/" if folder else ""
        inside = [path for path in self._files if path.parent == place]
        return [self._file(prefix + path.name, path) for path in sorted(inside)]

    def _file(self, name: str, path: Path) -> File:
        return File(name, _resolved(path))

    def _walk(self) -> Iterator[Path]:
        count, waiting = 0, [self._root]
        while waiting:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    path, count = Path(entry.path), count + 1
                    name = str(path.relative_to(self._root))
                    _check_bounds(name, count)
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(path)
                    elif self._is_file(name, path):
                        yield path

    def _is_file(self, name: str, path: Path) -> bool:
        """Whether it is one, or a link to one; a link to a folder inside is looked at in its own place."""
        real = _resolved(path)
        if not any(real.is_relative_to(area) for area in self._areas):
            raise unsafe_path(name, "is a link out of the model's folder")
        mode = _mode(name, real)
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise irregular(name, mode)
        return stat.S_ISREG(mode)


def single(path: Path) -> File:
    """One file by itself; the entry may be a link. Raises UNSAFE_PATH, CORRUPT_FILE."""
    real = _resolved(path)
    mode = _mode(path.name, real)
    if not stat.S_ISREG(mode):
        raise irregular(path.name, mode)
    return File(path.name, real)


def _resolved(path: Path) -> Path:
    """Path.resolve, but for links in a circle, which stay as they are."""
    return Path(os.path.realpath(path))


def _areas(root: Path) -> tuple[Path, ...]:
    """Where links may lead: the folder; for one of a snapshot in a Hugging Face cache, its repository's blobs too."""
    for folder in (root, *root.parents):
        repository = folder.parent.parent
        if folder.parent.name == "snapshots" and repository.name.startswith("models--"):
            return (root, repository / "blobs")
    return (root,)


def _check_bounds(name: str, count: int) -> None:
    if count > _MOST_ENTRIES:
        raise corrupt(name, f"a model of at most {_MOST_ENTRIES} files", "more")
    if name.count("/") > _DEEPEST:
        raise corrupt(name, f"folders at most {_DEEPEST} deep", "deeper ones")
    if not name.isprintable():
        raise unsafe_path(name, "has a name with characters that cannot be printed")


def _mode(name: str, real: Path) -> int:
    try:
        return real.lstat().st_mode
    except OSError as exc:
        raise corrupt(name, "a file", f"a link to nothing ({exc.strerror})") from exc
