"""A control model in memory: diffusers' network, of a folder, or of one file in whatever layout.

It lies in the cache beside the models that it is used with, is shared by their rows, and draws nothing itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from craft_protos.dispatch import CONTROLNET, Dispatch, ModelManifest
from craft_protos.reasons import CraftError

from craftd.architectures import controls
from craftd.worker.engine.row import Drawing
from craftd.worker.engine.stages import Before
from craftd.worker.lora.layer import held_bytes
from craftd.worker.models import control_layouts as layouts
from craftd.worker.models.component_file import Component
from craftd.worker.models.control_layouts import Layout
from craftd.worker.models.folder import read_json
from craftd.worker.output.picture import Pixels
from craftd.worker.process.device import Device
from craftd.worker.quantized import stored
from craftd.worker.quantized.stored import Stored

_PREFIXES = ("control_model.", "controlnet.")
# By diffusers' class, which a manifest names as its pipeline: how a file alone is read.
_LAYOUTS: Mapping[str, Layout] = {
    controls.CONTROLNET: layouts.CONTROLNET,
    controls.T2I_ADAPTER: layouts.T2I_ADAPTER,
    controls.OF_FLUX: layouts.FLUX,
    controls.OF_SD3: layouts.SD3,
    controls.OF_QWEN: layouts.QWEN,
    controls.OF_Z_IMAGE: layouts.Z_IMAGE,
}


class ControlModel:
    """A Runner for the cache's sake: what it has is its network."""

    pipe = None
    weights = notice = ""
    is_tiled = is_reading = False

    def __init__(self, network: Any, precision: str, device: torch.device) -> None:
        self.network = network
        self.precision = precision
        self.device = device
        self.resident_bytes = held_bytes([network])

    def remarks(self, job: Dispatch) -> Sequence[str]:
        return ()

    def want(self, jobs: Sequence[Dispatch]) -> Mapping[str, CraftError]:
        return {}

    def is_ready(self, job: Dispatch) -> bool:
        return True

    def begin(self, job: Dispatch, seed: int, networks: Mapping[str, Any], made: Before | None = None) -> Drawing:
        why = f"{job.model.name} is a control model, which draws nothing by itself"
        raise CraftError("UNSUPPORTED_MODEL", why, "name it in a job's controls")

    def that_fit(self, drawings: Sequence[Drawing]) -> int:
        return len(drawings)

    def advance(self, drawings: Sequence[Drawing], *, with_preview: Sequence[bool]) -> list[Exception | None]:
        raise NotImplementedError

    def render(self, drawings: Sequence[Drawing]) -> list[Pixels]:
        raise NotImplementedError

    def offload(self) -> bool:
        return False

    def tile(self) -> bool:
        return False

    def close(self) -> None:
        """It holds nothing beside its weights."""


def load(manifest: ModelManifest, folder: Path, device: Device) -> ControlModel:
    """Of a manifest's files in `folder`. Raises UNSUPPORTED_MODEL, CORRUPT_FILE, and what the libraries raise."""
    place, kind = folder / CONTROLNET, manifest.pipeline or controls.CONTROLNET
    tensors = _tensors(place, manifest.name)
    config = place / "config.json"
    if not config.is_file():
        layout = _LAYOUTS[kind]
        tensors = layout.named(tensors, manifest.name)
        config.write_text(json.dumps({"_class_name": kind, **layout.configured(tensors)}), encoding="utf-8")
    _check_class(read_json(config, manifest.name), kind, manifest.name)
    network = Component(place, ("diffusers", kind), device.dtype, "", manifest.name).of(tensors)
    return ControlModel(network.to(device.place), device.precision, device.place)


def _tensors(place: Path, name: str) -> dict[str, Stored]:
    """Of all its files, without what stands before the network's names."""
    found: dict[str, Stored] = {}
    for path in sorted(place.glob("*.safetensors")):
        found |= stored.read(path, name)
    for prefix in _PREFIXES:
        inside = {key.removeprefix(prefix): one for key, one in found.items() if key.startswith(prefix)}
        if inside:
            return inside
    return found


def _check_class(config: Mapping[str, object], kind: str, name: str) -> None:
    said = config.get("_class_name", kind)
    if said != kind:
        raise CraftError("UNSUPPORTED_MODEL", f"the control model {name} says that it is a {said}, and is a {kind}")
