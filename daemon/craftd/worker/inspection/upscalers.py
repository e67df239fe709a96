"""Whether a stranger's file is an upscaler, and which: Spandrel builds its network, in a process of its own."""

from __future__ import annotations

from pathlib import Path

import torch
from craft_protos.reasons import CraftError

from craftd import safetensors
from craftd.architectures.upscalers import Upscaling
from craftd.worker.inspection import model
from craftd.worker.inspection.tree import single
from craftd.worker.upscaling import reading


def prepare() -> None:
    """Before the process is confined: threads of torch's could not be started any more."""
    torch.set_num_threads(1)


def of(path: Path) -> dict[str, object]:
    """An Identity's fields. Raises UNSAFE_PATH, UNSAFE_FORMAT, CORRUPT_FILE, UNSUPPORTED_MODEL, NOT_FINITE."""
    model.check(path)
    found = reading.read(path, path.name)
    if not reading.is_finite(found):
        message = f"{path.name}: numbers of the network are NaN or infinite"
        raise CraftError("NOT_FINITE", message, "get the file again")
    told = Upscaling(found.architecture.name, found.scale, found.input_channels)
    if Upscaling.of(told.kind) is None:
        message = f"{path.name}: craft has no name for the architecture {told.architecture!r}"
        raise CraftError("UNSUPPORTED_MODEL", message, "`craft models list` shows what can be used")
    precision = safetensors.read(single(path)).precision("")
    return {"what": "part", "of": told.shown, "kind": told.kind, "missing": [], "precision": precision, "lacks": ""}
