"""Reads a diffusers folder: its pipeline, its defaults, the files that a worker needs.

Nothing here opens weights, but for the header of one safetensors file.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from craft_protos import samplers
from craft_protos.reasons import CraftError

from craftd.models import choosing
from craftd.models.choosing import INDEX
from craftd.models.model import Defaults, Model, ModelFile

_LONGEST_JSON_BYTES = 16 << 20
_FAMILIES = {
    "StableDiffusionPipeline": "sd",
    "StableDiffusionXLPipeline": "sdxl",
    "StableDiffusion3Pipeline": "sd3",
    "FluxPipeline": "flux",
}
_PRECISIONS = {"F32": "fp32", "F16": "fp16", "BF16": "bf16", "F64": "fp64"}
_SCHEDULERS = {
    "DDIMScheduler": "DDIM",
    "DDPMScheduler": "DDPM",
    "DEISMultistepScheduler": "DEIS",
    "DPMSolverMultistepScheduler": "DPM++ 2M",
    "DPMSolverSDEScheduler": "DPM++ SDE",
    "DPMSolverSinglestepScheduler": "DPM++ 2S",
    "EulerAncestralDiscreteScheduler": "Euler a",
    "EulerDiscreteScheduler": "Euler",
    "FlowMatchEulerDiscreteScheduler": "Euler",
    "HeunDiscreteScheduler": "Heun",
    "KDPM2AncestralDiscreteScheduler": "DPM2 a",
    "KDPM2DiscreteScheduler": "DPM2",
    "LCMScheduler": "LCM",
    "LMSDiscreteScheduler": "LMS",
    "PNDMScheduler": "PNDM",
    "TCDScheduler": "TCD",
    "UniPCMultistepScheduler": "UniPC",
}
_GUIDANCE = {"sdxl": 5.0, "sd3": 7.0, "flux": 3.5}
_STEPS = {"sdxl": 30, "sd3": 28, "flux": 28}
_USUAL_GUIDANCE, _USUAL_STEPS = 7.5, 25
_FEW_STEPS = {"steps": 4, "guidance_scale": 0.0}  # a FLUX.1 without guidance in it: schnell
_OVERRIDES: dict[str, type] = {"width": int, "height": int, "steps": int, "guidance_scale": float, "sampler": str}


def is_model(folder: Path) -> bool:
    return (folder / INDEX).is_file()


def read(folder: Path, *, name: str, built_in: bool = False, only: Sequence[str] | None = None) -> Model:
    """The model in `folder`, or just the files in `only`. A broken one is a Model too, with `refused` saying why."""
    try:
        return _read(folder, name, built_in, only)
    except CraftError as exc:
        return refused(folder, exc, name=name, built_in=built_in)


def refused(folder: Path, why: CraftError, *, name: str, built_in: bool = False) -> Model:
    """A model that is listed, and that nothing of is opened."""
    return Model(
        name=name,
        folder=folder,
        family="generic",
        pipeline="",
        granularity=8,
        defaults=Defaults(512, 512, _USUAL_STEPS, 7.5, "Euler"),
        files=(),
        built_in=built_in,
        refused=why.reason,
        refused_why=why.message,
        refused_hint=why.hint or "download it again",
    )


def _read(folder: Path, name: str, built_in: bool, only: Sequence[str] | None) -> Model:
    index = _json(folder / INDEX)
    pipeline, family = pipeline_of(index)
    files = _files(folder, index, family) if only is None else _listed(folder, only)
    return Model(
        name=name,
        folder=folder,
        family=family,
        pipeline=pipeline,
        granularity=granularity(folder, family),
        defaults=defaults(folder, family),
        files=files,
        precision=precision(files),
        built_in=built_in,
    )


def pipeline_of(index: dict[str, Any]) -> tuple[str, str]:
    """(the diffusers class, craft's family for it)"""
    pipeline = str(index.get("_class_name", ""))
    return pipeline, _FAMILIES.get(pipeline, "generic")


def granularity(folder: Path, family: str) -> int:
    return max(8, _vae_factor(folder) * _token_side(folder, family))


def defaults(folder: Path, family: str) -> Defaults:
    """What its configurations tell."""
    side = _sample_size(folder) * _vae_factor(folder)
    derived: dict[str, Any] = {
        "width": side,
        "height": side,
        "steps": _STEPS.get(family, _USUAL_STEPS),
        "guidance_scale": _GUIDANCE.get(family, _USUAL_GUIDANCE),
        "sampler": _sampler(_optional_json(folder / "scheduler" / "scheduler_config.json")),
    }
    few = _FEW_STEPS if family == "flux" and not _has_guidance(folder) else {}
    return Defaults(**{**derived, **few, **_overrides(folder / "craft.json")})


def _overrides(path: Path) -> dict[str, Any]:
    written = _optional_json(path)
    for key, value in written.items():
        kind = _OVERRIDES.get(key)
        if kind is None:
            raise CraftError("CORRUPT_FILE", f"{path}: unknown key {key!r}", f"known: {', '.join(_OVERRIDES)}")
        if isinstance(value, bool) or not isinstance(value, (int, float) if kind is float else kind):
            raise CraftError("CORRUPT_FILE", f"{path}: {key} must be a {kind.__name__}")
    if "sampler" in written:
        written["sampler"] = samplers.canonical(written["sampler"])
    return written


def _sampler(config: dict[str, Any]) -> str:
    name = _SCHEDULERS.get(str(config.get("_class_name", "")), "Euler")
    if name == "DPM++ 2M" and str(config.get("algorithm_type", "")).startswith("sde-"):
        name = "DPM++ 2M SDE"
    karras = f"{name} Karras"
    return karras if config.get("use_karras_sigmas") is True and karras in samplers.SAMPLERS else name


def _sample_size(folder: Path) -> int:
    for part in ("unet", "transformer"):
        size = _optional_json(folder / part / "config.json").get("sample_size")
        if isinstance(size, int) and not isinstance(size, bool) and 0 < size <= 4096:
            return size
    return 128 if (folder / "transformer").is_dir() else 64


def _has_guidance(folder: Path) -> bool:
    return _optional_json(folder / "transformer" / "config.json").get("guidance_embeds") is True


def _token_side(folder: Path, family: str) -> int:
    """Of a transformer's tokens, in pixels of the latents."""
    if family == "flux":
        return 2
    side = _optional_json(folder / "transformer" / "config.json").get("patch_size") if family == "sd3" else 1
    return side if isinstance(side, int) and 0 < side <= 16 else 1


def _vae_factor(folder: Path) -> int:
    blocks = _optional_json(folder / "vae" / "config.json").get("block_out_channels")
    return 2 ** (len(blocks) - 1) if isinstance(blocks, list) and 0 < len(blocks) < 8 else 8


def _files(folder: Path, index: dict[str, Any], family: str) -> tuple[ModelFile, ...]:
    found = [_file(folder / INDEX, INDEX)]
    for part in choosing.parts(index, family):
        found += _part_files(folder / part, part)
    return tuple(found)


def _part_files(folder: Path, part: str) -> list[ModelFile]:
    if not folder.is_dir():
        raise CraftError("CORRUPT_FILE", f"{folder}: the folder is missing")
    names = [path.name for path in sorted(folder.iterdir()) if path.is_file()]
    chosen = choosing.of_part(names, str(folder))
    return [_file(folder / name, f"{part}/{choosing.plain_name(name)}") for name in chosen]


def _listed(folder: Path, names: Sequence[str]) -> tuple[ModelFile, ...]:
    for name in names:
        if not (folder / name).is_file():
            raise CraftError("CORRUPT_FILE", f"{folder / name}: the file is missing", "pull the model again")
    return tuple(_file(folder / name, choosing.plain_path(name)) for name in names)


def _file(path: Path, name: str) -> ModelFile:
    return ModelFile(name, path, path.stat().st_size)


def precision(files: tuple[ModelFile, ...]) -> str:
    for part in ("unet/", "transformer/"):
        for file in files:
            if file.path.startswith(part) and file.path.endswith(".safetensors"):
                return _dtype(file.source)
    return ""


def _dtype(path: Path) -> str:
    """The type of the first tensor in a safetensors file, "" where that cannot be told."""
    with path.open("rb") as stream:
        head = stream.read(8)
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
        header = stream.read(length) if 0 < length <= _LONGEST_JSON_BYTES else b""
    found = re.search(rb'"dtype"\s*:\s*"([A-Z0-9_]+)"', header)
    return _PRECISIONS.get(found.group(1).decode(), "") if found else ""


def _optional_json(path: Path) -> dict[str, Any]:
    return _json(path) if path.is_file() else {}


def _json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _LONGEST_JSON_BYTES:
            raise CraftError("CORRUPT_FILE", f"{path}: too long to be a configuration")
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as exc:
        raise CraftError("CORRUPT_FILE", f"{path}: not readable as JSON ({exc})") from exc
    if not isinstance(content, dict):
        raise CraftError("CORRUPT_FILE", f"{path}: a JSON object was expected")
    return content
