"""What an image file says about how it was made: JSON for craft, one text for other tools."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from craft_protos import infotexts
from craft_protos.dispatch import Dispatch
from craft_protos.provenance import AppliedLora, record


@dataclass(frozen=True)
class Circumstances:
    """How one image came to be, beyond what was asked for."""

    scheduler: str
    device: str
    precision: str  # it was computed in
    weights: str  # how its model's weights were packed: "fp8 e4m3", "int8", "Q4_K"; "": numbers to compute with
    versions: dict[str, str]
    batch: int  # the most rows it shared a batch with, itself counted
    vae_tiling: bool


def texts(job: Dispatch, index: int, loras: Sequence[AppliedLora], how: Circumstances) -> tuple[str, str]:
    """Both: ASCII JSON, of what the front knows and everything that this image follows from; and the infotext."""
    made = record(job, index, loras, asdict(how))
    known = json.loads(job.provenance) if job.provenance else {}
    return json.dumps(known | made), infotexts.written(made)
