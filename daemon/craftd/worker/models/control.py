"""A control model in memory: diffusers' ControlNetModel, of a folder, or of one file in whatever layout.

It lies in the cache beside the models that it is used with, is shared by their rows, and draws nothing itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from craft_protos.dispatch import CONTROLNET, Dispatch, ModelManifest
from craft_protos.reasons import CraftError
from diffusers.models.controlnets.controlnet import ControlNetModel

from craftd.architectures import controls
from craftd.worker.engine.row import Drawing
from craftd.worker.engine.stages import Made
from craftd.worker.lora.layer import held_bytes
from craftd.worker.models.component_file import Component
from craftd.worker.models.folder import read_json
from craftd.worker.output.picture import Pixels
from craftd.worker.process.device import Device
from craftd.worker.quantized import conversion, stored
from craftd.worker.quantized.stored import Stored

KIND = "ControlNetModel"  # diffusers' class, which a manifest names as its pipeline
_PREFIXES = ("control_model.", "controlnet.")
_LAYERS = {"layers_per_block": 2}  # of each file in the original layout
_OF_XL = {"label_emb.0.0.": "add_embedding.linear_1.", "label_emb.0.2.": "add_embedding.linear_2."}
_HEADS = {768: 8}  # of Stable Diffusion 1, whatever the width; others have heads of 64 channels
_HEAD_WIDTH = 64


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

    def begin(self, job: Dispatch, seed: int, networks: Mapping[str, Any], made: Made | None = None) -> Drawing:
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
    place = folder / CONTROLNET
    tensors = _tensors(place, manifest.name)
    config = place / "config.json"
    if not config.is_file():
        if "controlnet_mid_block.weight" not in tensors:
            tensors = _converted(tensors, manifest.name)
        config.write_text(json.dumps(configured(tensors)), encoding="utf-8")
    _check_class(read_json(config, manifest.name), manifest.name)
    network = Component(place, ("diffusers", KIND), device.dtype, "", manifest.name).of(tensors)
    return ControlModel(network.to(device.place), device.precision, device.place)


def configured(tensors: Mapping[str, Stored]) -> dict[str, Any]:
    """What a network of these tensors, in diffusers' names, is made with: their names and shapes say it."""
    levels = range(_count(tensors, r"down_blocks\.(\d+)\."))
    widths = [int(tensors[f"down_blocks.{level}.resnets.0.conv1.weight"].shape[0]) for level in levels]
    attends = [f"down_blocks.{level}.attentions.0.proj_in.weight" in tensors for level in levels]
    hint = _count(tensors, r"controlnet_cond_embedding\.blocks\.(\d+)\.") // 2
    text = next((int(one.shape[-1]) for name, one in tensors.items() if name.endswith("attn2.to_k.weight")), 0)
    middle = _count(tensors, r"mid_block\.attentions\.0\.transformer_blocks\.(\d+)\.")
    deep = [_count(tensors, rf"down_blocks\.{level}\.attentions\.0\.transformer_blocks\.(\d+)\.") for level in levels]
    linear = next((len(one.shape) == 2 for name, one in tensors.items() if name.endswith("proj_in.weight")), False)
    config: dict[str, Any] = {
        "_class_name": KIND,
        "in_channels": int(tensors["conv_in.weight"].shape[1]),
        "conditioning_channels": int(tensors["controlnet_cond_embedding.conv_in.weight"].shape[1]),
        "block_out_channels": widths,
        "down_block_types": ["CrossAttnDownBlock2D" if one else "DownBlock2D" for one in attends],
        "mid_block_type": "UNetMidBlock2DCrossAttn" if middle else "UNetMidBlock2D",
        "layers_per_block": _count(tensors, r"down_blocks\.0\.resnets\.(\d+)\."),
        "cross_attention_dim": text,
        "transformer_layers_per_block": [*(max(1, depth) for depth in deep[:-1]), middle or max(1, deep[-1])],
        "attention_head_dim": _HEADS.get(text) or [max(1, width // _HEAD_WIDTH) for width in widths],
        "use_linear_projection": linear,
        "conditioning_embedding_out_channels": [
            int(tensors["controlnet_cond_embedding.conv_in.weight"].shape[0]),
            *(int(tensors[f"controlnet_cond_embedding.blocks.{2 * n + 1}.weight"].shape[0]) for n in range(hint)),
        ],
    }
    told = tensors.get("add_embedding.linear_1.weight")
    if told is not None:  # the size and the prompt as a whole, as Stable Diffusion XL has it
        config |= {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": int(told.shape[1]),
        }
    return config


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


def _converted(tensors: dict[str, Stored], name: str) -> dict[str, Stored]:
    """From the original layout; diffusers' converter leaves out what only Stable Diffusion XL's have."""
    kind: Any = ControlNetModel
    made = conversion.converted(kind, _LAYERS, {"controlnet_mid_block.weight"}, tensors, name)
    for theirs, ours in _OF_XL.items():
        made |= {key.replace(theirs, ours): one for key, one in tensors.items() if key.startswith(theirs)}
    return made


def _count(tensors: Mapping[str, Stored], pattern: str) -> int:
    """One more than the highest number that the names have there."""
    numbers = (int(match[1]) for name in tensors if (match := re.match(pattern, name)))
    return max(numbers, default=-1) + 1


def _check_class(config: Mapping[str, object], name: str) -> None:
    kind = config.get("_class_name", KIND)
    if kind != KIND:
        raise CraftError("UNSUPPORTED_MODEL", f"the control model {name} is a {kind}", controls.DRAWN_WITH)
