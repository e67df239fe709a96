"""Files in the Hugging Face cache that craft downloaded: deleted when nothing needs them. Blocking."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Freed:
    """`blobs`: what is gone, as it was noted when it came."""

    blobs: tuple[Path, ...]
    bytes: int


def root() -> Path:
    """Of the cache."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE).expanduser()


def discard(pointers: Iterable[Path], downloaded: Collection[Path], kept: Iterable[Path]) -> Freed:
    """Delete snapshots' links, and those of their blobs that are in `downloaded` and that no other snapshot links.

    `kept`: other models' links.
    """
    needed = set(kept)
    leaving = [pointer for pointer in pointers if pointer not in needed and pointer.is_symlink()]
    blobs = {pointer: _target(pointer) for pointer in leaving}
    freed, total = [], 0
    for pointer, blob in blobs.items():
        if blob not in downloaded:
            continue
        pointer.unlink()
        if not _is_linked(blob):
            with contextlib.suppress(FileNotFoundError):
                total += blob.stat().st_size
                blob.unlink()
            freed.append(blob)
        _prune(pointer.parent)
    return Freed(tuple(freed), total)


def _target(pointer: Path) -> Path:
    return (pointer.parent / pointer.readlink()).resolve()


def _is_linked(blob: Path) -> bool:
    """By any snapshot of its repository."""
    snapshots = blob.parent.parent / "snapshots"
    return any(one.is_symlink() and _target(one) == blob for one in snapshots.rglob("*"))


def _prune(folder: Path) -> None:
    """Folders that are empty now, up to `snapshots`."""
    while folder.name != "snapshots" and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent
