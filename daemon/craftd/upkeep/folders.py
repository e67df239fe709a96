"""What lies in a folder: how much it is, and what of it is old. Blocking; links count as themselves."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Amount:
    count: int = 0
    bytes: int = 0

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.count + other.count, self.bytes + other.bytes)


def measure(*places: Path) -> Amount:
    """Of files, and of all that lies in folders; what is not there is nothing."""
    amount = Amount()
    for place in places:
        for _, status in _files(place):
            amount += Amount(1, status.st_size)
    return amount


def older(folder: Path, before: float) -> list[tuple[Path, int]]:
    """(file, bytes) of those last changed before then."""
    return [(path, status.st_size) for path, status in _files(folder) if status.st_mtime < before]


def remove(files: list[tuple[Path, int]]) -> Amount:
    """What is gone."""
    amount = Amount()
    for path, size_bytes in files:
        with contextlib.suppress(OSError):
            path.unlink()
            amount += Amount(1, size_bytes)
    return amount


def _files(place: Path) -> Iterator[tuple[Path, os.stat_result]]:
    try:
        if not place.is_dir():
            yield place, place.lstat()
            return
        entries = list(os.scandir(place))
    except OSError:
        return
    for entry in entries:
        with contextlib.suppress(OSError):
            if entry.is_dir(follow_symlinks=False):
                yield from _files(Path(entry.path))
            else:
                yield Path(entry.path), entry.stat(follow_symlinks=False)
