"""Memory: which models stay loaded, and what to do when there is not enough.

The ladder on running out, for one model: smaller batch, offload (CUDA, rung by rung), tiled decoding (recorded,
because it changes pixels), and only then an error for one job.
"""

from __future__ import annotations

import ctypes
import gc
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from pathlib import Path

import torch
from craft_protos.dispatch import ModelManifest
from craft_protos.reasons import CraftError

from craftd import gguf, modular, safetensors, weights
from craftd.architectures import detect
from craftd.weights import Weights
from craftd.worker.models import sharing

OUT_OF_MEMORY = (torch.OutOfMemoryError, MemoryError)
_CPU_ALLOCATOR = "DefaultCPUAllocator"  # torch's, which raises a plain RuntimeError

_NAMES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
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
    has_offloaded: bool = False  # as far as it goes
    has_tiled: bool = False
    is_offloaded: bool = False  # on its way down; a model too big to begin with is not

    def descend(self, rows: int, *, is_decoding: bool) -> Rung:
        """The next rung after `rows` rows were too many."""
        release_cached()
        if rows > 1:
            return Rung.SMALLER_BATCH
        if not self.has_offloaded:
            self.has_offloaded = not self.offload()
            if not self.has_offloaded:
                self.is_offloaded = True
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
        """Allow half as many pixels as have just been too many."""
        self.most = max(1, min(self.most, pixels) // 2)


@dataclass(frozen=True)
class Need:
    """What a model will take. `shared`: parts that another model may hold already, and the bytes of each among them."""

    bytes: int
    shared: Mapping[str, int] = field(default_factory=dict)


def need(manifest: ModelManifest, files: Path, dtype: torch.dtype) -> Need:
    """Read from the headers of its files."""
    shared = {
        key: need_bytes(replace(manifest, files=sharing.files_of(manifest, component)), files, dtype)
        for component, key in sharing.keys(manifest, _computing(manifest, dtype), _classes(manifest, files)).items()
    }
    return Need(need_bytes(manifest, files, dtype), shared)


def _computing(manifest: ModelManifest, dtype: torch.dtype) -> str:
    """Equal for models whose parts are computed in one precision."""
    return f"{dtype} {detect.of_pipeline(manifest.pipeline, None).runs_in_fp16}"


def _classes(manifest: ModelManifest, files: Path) -> dict[str, str]:
    """Of its components, as its index says; {} where that cannot be read, which loading will say."""
    index = next((file for file in manifest.files if file.path in ("model_index.json", modular.INDEX)), None)
    try:
        told = modular.plain(json.loads((files / index.sha256).read_bytes())) if index is not None else {}
        return {name: str(where[1]) for name, where in told.items() if isinstance(where, list) and len(where) == 2}
    except (OSError, ValueError, AttributeError, CraftError):
        return {}


def need_bytes(manifest: ModelManifest, files: Path, dtype: torch.dtype) -> int:
    """What the model's weights will take in the precision that it is kept in, read from the headers of its files."""
    found = Weights()
    for file in manifest.files:
        if file.path.endswith((".safetensors", ".gguf")):
            found += _weights(files / file.sha256, file.path)
    return found.resident_bytes(_NAMES[dtype], manifest.precision)


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
    """Give back what the device's allocator keeps for itself."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def too_little(what: str) -> CraftError:
    """OUT_OF_MEMORY, after every rung."""
    return CraftError(
        "OUT_OF_MEMORY", f"the device's memory does not suffice for {what}", "ask for a smaller size or fewer images"
    )


def _weights(path: Path, name: str) -> Weights:
    try:
        header = gguf.read(path) if gguf.is_gguf(path) else safetensors.read(path)
    except (CraftError, OSError):
        return Weights()  # loading will say what is wrong with it
    return weights.of(header, name.rpartition("/")[0])
