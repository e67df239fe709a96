"""Reads a diffusers folder: its pipeline, its defaults, the files that a worker needs.

Nothing here opens weights, but for the header of one safetensors file.
"""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path
from typing import Any

from craft_protos import samplers
from craft_protos.reasons import CraftError

from craftd.models.model import Defaults, Model, ModelFile

_INDEX = "model_index.json"
_LONGEST_JSON_BYTES = 16 << 20
_TEXT_FILES = {".json", ".txt", ".model"}
_PICKLES = {".bin", ".ckpt", ".pt", ".pth", ".pkl"}
_FAMILIES = {
    "StableDiffusionPipeline": "sd",
    "StableDiffusionXLPipeline": "sdxl",
    "StableDiffusion3Pipeline": "sd3",
    "FluxPipeline": "flux",
}
_UNUSED = {"safety_checker", "feature_extractor", "image_encoder"}  # by these families
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
    return (folder / _INDEX).is_file()


def read(folder: Path, *, name: str, built_in: bool = False) -> Model:
    """The model in `folder`. One that is broken is a Model too, with `refused` saying why."""
    try:
        return _read(folder, name, built_in)
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


def _read(folder: Path, name: str, built_in: bool) -> Model:
    index = _json(folder / _INDEX)
    pipeline = str(index.get("_class_name", ""))
    family = _FAMILIES.get(pipeline, "generic")
    files = _files(folder, index, family)
    return Model(
        name=name,
        folder=folder,
        family=family,
        pipeline=pipeline,
        granularity=max(8, _vae_factor(folder) * _token_side(folder, family)),
        defaults=_defaults(folder, family),
        files=files,
        precision=_precision(files),
        built_in=built_in,
    )


def _defaults(folder: Path, family: str) -> Defaults:
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
    found = [_file(folder / _INDEX, _INDEX)]
    unused = set() if family == "generic" else _UNUSED
    for part, value in sorted(index.items()):
        if isinstance(value, list) and len(value) == 2 and value[1] is not None and part not in unused:
            found += _part_files(folder / part, part)
    return tuple(found)


def _part_files(folder: Path, part: str) -> list[ModelFile]:
    if re.search(r"[/\\]|^\.", part):
        raise CraftError("UNSAFE_PATH", f"{folder.parent / _INDEX}: {part!r} is not the name of a part")
    if not folder.is_dir():
        raise CraftError("CORRUPT_FILE", f"{folder}: the folder is missing")
    paths = [path for path in sorted(folder.iterdir()) if path.is_file()]
    weights = [path for path in paths if path.suffix == ".safetensors"]
    if not weights and any(path.suffix in _PICKLES for path in paths):
        raise CraftError("UNSAFE_FORMAT", f"{folder}: only pickle files, which could run code, hold the weights")
    indexes = [path for path in paths if ".safetensors.index." in path.name]
    texts = [
        path for path in paths if path.suffix in _TEXT_FILES and path not in indexes and ".index." not in path.name
    ]
    chosen = texts + _choose_weights(weights, indexes)
    return [_file(path, f"{part}/{_plain_name(path.name)}") for path in chosen]


def _choose_weights(weights: list[Path], indexes: list[Path]) -> list[Path]:
    """The full-precision files where they are there, else those of a variant (fp16)."""
    plain = [path for path in weights if not _is_variant(path.name)]
    if plain:
        return plain + [path for path in indexes if not _is_variant(path.name)]
    return weights + indexes


def _is_variant(name: str) -> bool:
    return re.search(r"\.(fp16|bf16|fp32|non_ema)\b", name) is not None


def _plain_name(name: str) -> str:
    """A single file of a variant goes by the plain name; shards keep theirs, which their index lists."""
    return name if re.search(r"-\d+-of-\d+", name) else re.sub(r"\.(fp16|bf16|fp32|non_ema)(?=\.)", "", name)


def _file(path: Path, name: str) -> ModelFile:
    return ModelFile(name, path, path.stat().st_size)


def _precision(files: tuple[ModelFile, ...]) -> str:
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
