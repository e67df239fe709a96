"""Reads a diffusers folder: its pipeline, its defaults, the files that a worker needs.

Nothing here opens weights, but for the header of one safetensors file.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from craft_protos import samplers
from craft_protos.reasons import CraftError

from craftd import gguf, modular, safetensors, weights
from craftd.architectures import detect
from craftd.architectures.architecture import Architecture
from craftd.architectures.registry import UNKNOWN
from craftd.architectures.sizes import PARTS, Configurations, Sizes, vae_factor
from craftd.architectures.sizes import sizes as sizes_of
from craftd.models import choosing, prediction
from craftd.models.choosing import INDEX
from craftd.models.model import Defaults, Model, ModelFile
from craftd.models.part import Given, composed
from craftd.weights import Weights

_LONGEST_JSON_BYTES = 16 << 20
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
    "SCMScheduler": "LCM",
    "TCDScheduler": "TCD",
    "UniPCMultistepScheduler": "UniPC",
}
_OVERRIDES: dict[str, type] = {"width": int, "height": int, "steps": int, "guidance_scale": float, "sampler": str}


def is_model(folder: Path) -> bool:
    return (folder / index_name(folder)).is_file()


def index_name(folder: Path) -> str:
    """Of the file that says what is in it."""
    is_modular = not (folder / INDEX).is_file() and (folder / modular.INDEX).is_file()
    return modular.INDEX if is_modular else INDEX


def index_of(folder: Path) -> dict[str, Any]:
    """Raises CORRUPT_FILE, UNSUPPORTED_MODEL."""
    name = index_name(folder)
    return modular.plain(_json(folder / name)) if name == modular.INDEX else _json(folder / name)


def read(
    folder: Path,
    *,
    name: str,
    built_in: bool = False,
    only: Sequence[str] | None = None,
    given: Sequence[Given] = (),
) -> Model:
    """The model in `folder`, or just the files in `only`; `given`: parts that take the place of its own.

    A broken one is a Model too, with `refused` saying why.
    """
    try:
        return _with_parts(_read(folder, name, built_in, only), given)
    except CraftError as exc:
        return refused(folder, exc, name=name, built_in=built_in)


def refused(folder: Path, why: CraftError, *, name: str, built_in: bool = False) -> Model:
    """A model that is listed, and that nothing of is opened."""
    return Model(
        name=name,
        folder=folder,
        architecture=UNKNOWN,
        pipeline="",
        sizes=Sizes(8),
        defaults=Defaults(512, 512, UNKNOWN.steps, UNKNOWN.guidance_scale, "Euler"),
        files=(),
        built_in=built_in,
        refused=why.reason,
        refused_why=why.message,
        refused_hint=why.hint or "download it again",
    )


def _with_parts(model: Model, given: Sequence[Given]) -> Model:
    """Raises UNSUPPORTED_MODEL for a component that its pipeline does not have."""
    for one in given:
        if not any(file.path.startswith(f"{one.component}/") for file in model.files):
            why = f"its pipeline, {model.pipeline}, has no {one.component} that {one.part.name} could be"
            raise CraftError("UNSUPPORTED_MODEL", why, f"take it back: craft models edit {model.name} --vae own")
    named = tuple((one.component, one.part.name) for one in given)
    return replace(model, files=composed(model.files, given), parts=named) if given else model


def _read(folder: Path, name: str, built_in: bool, only: Sequence[str] | None) -> Model:
    index = index_of(folder)
    architecture = architecture_of(folder, index)
    files = _files(folder, index, architecture) if only is None else _listed(folder, only)
    return Model(
        name=name,
        folder=folder,
        architecture=architecture,
        pipeline=pipeline_of(index),
        sizes=sizes(folder),
        defaults=defaults(folder, architecture),
        files=files,
        precision=precision(files),
        weights=weights_of(files),
        built_in=built_in,
        prediction=prediction.of_configuration(_optional_json(folder / "scheduler" / "scheduler_config.json")),
    )


def pipeline_of(index: dict[str, Any]) -> str:
    """The diffusers class."""
    return str(index.get("_class_name", ""))


def architecture_of(folder: Path, index: dict[str, Any]) -> Architecture:
    unet = _optional_json(folder / "unet" / "config.json")
    return detect.of_pipeline(pipeline_of(index), unet.get("cross_attention_dim"))


def sizes(folder: Path) -> Sizes:
    """That the model can draw, as its configurations tell."""
    return sizes_of(_configurations(folder))


def defaults(folder: Path, architecture: Architecture) -> Defaults:
    """What its configurations tell."""
    drawable = sizes(folder)
    side = _sample_size(folder) * vae_factor(_configurations(folder))
    width, height = drawable.nearest(side, side)
    derived: dict[str, Any] = {
        "width": width,
        "height": height,
        "steps": architecture.steps,
        "guidance_scale": architecture.guidance_scale,
        "sampler": _sampler(_optional_json(folder / "scheduler" / "scheduler_config.json")),
    }
    distilled = architecture.distilled
    if distilled is not None and distilled.tells(_configuration(folder, distilled.part)):
        derived |= {"steps": distilled.steps, "guidance_scale": distilled.guidance_scale}
    if sigmas := _configuration(folder, "").get("sample_sigmas"):  # of each step, as its makers have it
        derived["steps"] = len(sigmas)
    found = Defaults(**{**derived, **_overrides(folder / "craft.json")})
    if not drawable.allows(found.width, found.height):
        near = "x".join(map(str, drawable.nearest(found.width, found.height)))
        size = f"{found.width}x{found.height}"
        raise CraftError("CORRUPT_FILE", f"{folder / 'craft.json'}: it cannot draw {size}", f"write {near} there")
    return found


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


def _configuration(folder: Path, part: str) -> dict[str, Any]:
    """Of a part; "" is the pipeline itself."""
    if not part:
        return index_of(folder) if is_model(folder) else {}
    name = {"scheduler": "scheduler/scheduler_config.json"}.get(part, f"{part}/config.json")
    return _optional_json(folder / name)


def _configurations(folder: Path) -> Configurations:
    return {part: _optional_json(folder / part / "config.json") for part in PARTS}


def _files(folder: Path, index: dict[str, Any], architecture: Architecture) -> tuple[ModelFile, ...]:
    name = index_name(folder)
    found = [_file(folder / name, name)]
    for part in choosing.parts(index, architecture):
        if name == modular.INDEX and not (folder / part).is_dir():
            raise modular.absent(part, _json(folder / name))
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
                status = file.source.stat()
                return _precision(file.source, status.st_size, status.st_mtime_ns)
    return ""


def weights_of(files: Sequence[ModelFile]) -> Weights:
    """What of a model's files takes memory once it is loaded."""
    found = Weights()
    for file in files:
        if file.path.endswith((".safetensors", ".gguf")):
            status = file.source.stat()
            found += _weights(file.source, file.path.rpartition("/")[0], status.st_size, status.st_mtime_ns)
    return found


def blocks_of(files: Sequence[ModelFile]) -> dict[tuple[str, str], Weights]:
    """The same of each network, and of each block in it."""
    found: dict[tuple[str, str], Weights] = {}
    for file in files:
        if file.path.endswith((".safetensors", ".gguf")):
            status = file.source.stat()
            part = file.path.rpartition("/")[0]
            for place, some in _blocks(file.source, part, status.st_size, status.st_mtime_ns).items():
                found[place] = found.get(place, Weights()) + some
    return found


@lru_cache(maxsize=64)
def _blocks(path: Path, part: str, _size_bytes: int, _mtime_ns: int) -> dict[tuple[str, str], Weights]:
    try:
        return weights.by_blocks(gguf.read(path) if gguf.is_gguf(path) else safetensors.read(path), part)
    except (CraftError, OSError):
        return {}


@lru_cache(maxsize=256)
def _weights(path: Path, part: str, _size_bytes: int, _mtime_ns: int) -> Weights:
    """Nothing where that cannot be told: then the model cannot be loaded either, which says why."""
    try:
        return weights.of(gguf.read(path) if gguf.is_gguf(path) else safetensors.read(path), part)
    except (CraftError, OSError):
        return Weights()


@lru_cache(maxsize=256)
def _precision(path: Path, _size_bytes: int, _mtime_ns: int) -> str:
    """ "" where that cannot be told: then the model cannot be loaded either, which says why."""
    try:
        return safetensors.read(path).precision("")
    except CraftError:
        return ""


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
