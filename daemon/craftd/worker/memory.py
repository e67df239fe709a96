"""Memory: which models stay loaded, and what to do when there is not enough.

The ladder on running out, for one model: smaller batch, offload (CUDA), tiled decoding (recorded,
because it changes pixels), and only then an error for one job.
"""

from __future__ import annotations

import ctypes
import gc
import json
import struct
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, auto
from math import prod
from pathlib import Path

import torch
from craft_protos.reasons import CraftError

from craftd.worker.messages import Manifest

OUT_OF_MEMORY = (torch.OutOfMemoryError, MemoryError)
_CPU_ALLOCATOR = "DefaultCPUAllocator"  # torch's, which raises a plain RuntimeError

_LARGEST_HEADER_BYTES = 100 * 1024 * 1024
_USABLE = 0.8  # of the device's memory, for weights
_FIRST_TICK_PIXELS = 8 * 512 * 512 * 2
_LONGEST_TICK_S = 5.0  # cancel and joining wait for a tick


@contextmanager
def recognised() -> Iterator[None]:
    """The CPU allocator's failure becomes the MemoryError that it is."""
    try:
        yield
    except RuntimeError as exc:
        if _CPU_ALLOCATOR in str(exc):
            raise MemoryError(str(exc).splitlines()[0]) from exc
        raise


class Rung(Enum):
    """What to do after running out of memory."""

    SMALLER_BATCH = auto()
    OFFLOAD = auto()
    TILE = auto()
    FAIL = auto()


@dataclass
class Ladder:
    """One loaded model's way down. `offload` and `tile` do it, and say whether that was any help."""

    offload: Callable[[], bool]
    tile: Callable[[], bool]
    has_offloaded: bool = False
    has_tiled: bool = False
    is_offloaded: bool = False  # on its way down; a model too big to begin with is not

    def descend(self, rows: int, *, is_decoding: bool) -> Rung:
        """The next rung after `rows` rows were too many."""
        release_cached()
        if rows > 1:
            return Rung.SMALLER_BATCH
        if not self.has_offloaded:
            self.has_offloaded = True
            self.is_offloaded = self.offload()
            if self.is_offloaded:
                return Rung.OFFLOAD
        if is_decoding and not self.has_tiled:
            self.has_tiled = True
            if self.tile():
                return Rung.TILE
        return Rung.FAIL


@dataclass
class TickBudget:
    """How many pixels one model call may hold: what fits, and what takes no longer than a few seconds."""

    most: int = sys.maxsize
    seconds_per_pixel: float = 0.0
    is_warm: bool = False

    @property
    def pixels(self) -> int:
        if not self.seconds_per_pixel:
            return min(self.most, _FIRST_TICK_PIXELS)
        return min(self.most, int(_LONGEST_TICK_S / self.seconds_per_pixel))

    def measured(self, pixels: int, seconds: float) -> None:
        """Learn from a tick that went well; not from the first, which warms up. Quick to trust, slow to doubt."""
        rate = seconds / max(pixels, 1)
        if self.is_warm:
            known = self.seconds_per_pixel or rate
            self.seconds_per_pixel = min(known, rate) * 0.8 + rate * 0.2
        self.is_warm = True

    def halve(self, pixels: int) -> None:
        """So many were too many."""
        self.most = max(1, min(self.most, pixels) // 2)


@dataclass(frozen=True)
class Resident:
    """A model in memory, as eviction sees it."""

    key: tuple[str, str]
    resident_bytes: int
    last_used: int
    is_idle: bool


def to_evict(residents: Sequence[Resident], need_bytes: int, budget_bytes: int) -> list[Resident] | None:
    """The least recently used idle models whose going makes room; None where they do not suffice."""
    held = sum(resident.resident_bytes for resident in residents)
    chosen: list[Resident] = []
    for resident in sorted((r for r in residents if r.is_idle), key=lambda r: r.last_used):
        if held + need_bytes <= budget_bytes:
            break
        chosen.append(resident)
        held -= resident.resident_bytes
    return chosen if held + need_bytes <= budget_bytes else None


def budget_bytes(device_bytes: int) -> int:
    """What models may hold of a device's memory."""
    return int(device_bytes * _USABLE)


def need_bytes(manifest: Manifest, files: Path, dtype: torch.dtype) -> int:
    """What the model's weights will take, read from the headers of its files."""
    paths = [files / file.sha256 for file in manifest.files if file.path.endswith(".safetensors")]
    return sum(_elements(path) for path in paths) * dtype.itemsize


def release() -> None:
    """Give memory that nobody uses back to the system."""
    gc.collect()
    release_cached()
    trim()


def trim() -> None:
    """Give the system what is free in malloc's heap, which small blocks that stay keep from shrinking by itself."""
    if sys.platform == "linux":
        malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
        if malloc_trim is not None:
            malloc_trim(0)


def release_cached() -> None:
    """The same for the device's allocator alone."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def too_little(what: str) -> CraftError:
    """OUT_OF_MEMORY, after every rung."""
    return CraftError(
        "OUT_OF_MEMORY", f"the device's memory does not suffice for {what}", "ask for a smaller size or fewer images"
    )


def _elements(path: Path) -> int:
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(min(length, _LARGEST_HEADER_BYTES)))
        return sum(_count(entry.get("shape", [])) for key, entry in header.items() if key != "__metadata__")
    except (OSError, ValueError, struct.error, AttributeError):
        return 0  # loading will say what is wrong with it


def _count(shape: Iterable[int]) -> int:
    return prod(shape)
