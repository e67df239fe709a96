"""How a model's folder, or its one file, looks from outside: equal looks, equal contents. Nothing is opened."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

_CHECK = "1"  # raised with every change of craftd.worker.inspection: old verdicts count no more
_MOST_ENTRIES = 20_001  # one more than the check allows, so that it sees what we leave out
_Entry = tuple[str, os.stat_result]


def look(folder: Path) -> str:
    """A digest of every entry's name, kind, size, modification time and inode. Raises OSError."""
    root = Path(os.path.realpath(folder))
    digest = hashlib.sha256(f"{_CHECK}\n{root}\n".encode("utf-8", "surrogateescape"))
    for name, status in sorted(_entries(root), key=lambda entry: entry[0]):
        line = f"{name}\0{status.st_mode}\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_ino}\n"
        digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _entries(root: Path) -> Iterator[_Entry]:
    """Links twice: themselves, and what they lead to."""
    if not root.is_dir():
        yield str(root), root.lstat()
        return
    count, waiting = 0, [root]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                count += 1
                if count > _MOST_ENTRIES:
                    return
                own = entry.stat(follow_symlinks=False)
                yield entry.path, own
                if stat.S_ISLNK(own.st_mode):
                    yield from _target(Path(entry.path))
                elif stat.S_ISDIR(own.st_mode):
                    waiting.append(Path(entry.path))


def _target(link: Path) -> Iterator[_Entry]:
    real = os.path.realpath(link)
    try:
        yield f"{link} -> {real}", Path(real).lstat()
    except OSError:
        yield f"{link} -> {real}, which is not there", link.lstat()
