"""A diffusers folder, or a checkpoint of one file -> a runner: the family of its architecture, else the generic one."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import torch
from craft_protos.reasons import CraftError
from safetensors import SafetensorError

from craftd.worker import memory
from craftd.worker.denoise import Denoiser
from craftd.worker.device import Device
from craftd.worker.families.base import Family, Runner
from craftd.worker.families.flux import Flux
from craftd.worker.families.generic import PipelineRunner
from craftd.worker.families.sd import StableDiffusion
from craftd.worker.families.sd3 import StableDiffusion3
from craftd.worker.families.sdxl import StableDiffusionXL
from craftd.worker.folder import materialised, read_json
from craftd.worker.lora.residents import Housing
from craftd.worker.messages import Manifest
from craftd.worker.movement import Movement
from craftd.worker.single_file import SingleFile, absent, is_single_file

_log = logging.getLogger(__name__)

BytesDone = Callable[[int], None]

MakeFamily = Callable[[Any, torch.device], Family]

FAMILIES: dict[str, MakeFamily] = {
    "StableDiffusionPipeline": StableDiffusion,
    "StableDiffusionXLPipeline": StableDiffusionXL,
    "StableDiffusion3Pipeline": StableDiffusion3,
    "FluxPipeline": Flux,
}
_HOLD_IN_FP16 = ("StableDiffusionPipeline", "StableDiffusionXLPipeline")

# Not part of what the model draws, and the safety checker would black pictures out unasked.
_LEFT_OUT = ("safety_checker", "feature_extractor", "image_encoder")
# Models come without these too; diffusers wants to be told so.
_OPTIONAL = {"StableDiffusion3Pipeline": ("text_encoder_3", "tokenizer_3")}


@dataclass(frozen=True)
class Loader:
    """Loads models from a store of files onto one device."""

    files: Path
    workplace: Path
    device: Device
    loras: Housing
    movement: Movement = field(default_factory=Movement)

    def load(self, manifest: Manifest, bytes_done: BytesDone) -> Runner:
        """The model, on the device. Raises UNSUPPORTED_MODEL, UNSAFE_PATH, CORRUPT_FILE, OUT_OF_MEMORY."""
        with materialised(manifest, self.files, self.workplace) as folder:
            try:
                with memory.recognised():
                    return self._load(manifest, folder, bytes_done)
            except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as exc:
                if isinstance(exc, torch.OutOfMemoryError):
                    raise
                raise _unloadable(manifest, exc, folder) from exc

    def _load(self, manifest: Manifest, folder: Path, bytes_done: BytesDone) -> Runner:
        kind, components = _read_index(folder, manifest)
        family = FAMILIES.get(kind) if manifest.family != "generic" else None
        device = self.device if family and kind in _HOLD_IN_FP16 else _in_range(self.device)
        left_out = dict.fromkeys(_left_out(kind, components))
        if is_single_file(folder):
            left_out |= dict.fromkeys(absent(folder, components))
            single = SingleFile(folder, kind, components, device.dtype)
            parts: dict[str, Any] = single.load(partial(bytes_done, 0))
        else:
            parts = dict(_weighty_parts(folder, components, device.dtype, manifest, bytes_done))
        kinds: Any = diffusers
        pipe = kinds.DiffusionPipeline.from_pretrained(
            folder, dtype=device.dtype, use_safetensors=True, local_files_only=True, **parts, **left_out
        )
        pipe.set_progress_bar_config(disable=True)
        self.movement.watch(pipe)
        resident = _resident_bytes(pipe)
        is_too_big = exceeds(device, resident)
        if not is_too_big and not device.is_cpu:
            pipe.to(device.place)
        bytes_done(manifest.size_bytes)
        runner = self._runner(pipe, device, resident, family)
        if is_too_big:
            runner.offload()
        return runner

    def _runner(self, pipe: Any, device: Device, resident: int, family: MakeFamily | None) -> Runner:
        if family is None:
            loras = self.loras.of(pipe, merges_only=True)
            return PipelineRunner(pipe, loras, precision=device.precision, resident_bytes=resident, device=device.place)
        drawn, loras = family(pipe, device.place), self.loras.of(pipe)
        return Denoiser(
            drawn, loras, precision=device.precision, resident_bytes=resident, device=device.place, pipe=pipe
        )


def exceeds(device: Device, resident_bytes: int) -> bool:
    """Whether a model is too big for a CUDA device: its parts then come there one by one, as they are used."""
    return device.place.type == "cuda" and resident_bytes > memory.budget_bytes(device.total_bytes)


def _in_range(device: Device) -> Device:
    """Newer transformers overflow in fp16; bf16 has fp32's range."""
    return replace(device, precision="bf16") if device.precision == "fp16" and not device.is_cpu else device


def _left_out(kind: str, components: dict[str, tuple[str, str]]) -> list[str]:
    """What the pipeline is to be made without."""
    may_leave_out = kind in FAMILIES or kind == "LatentConsistencyModelPipeline"
    unused = [name for name in _LEFT_OUT if name in components and may_leave_out]
    return unused + [name for name in _OPTIONAL.get(kind, ()) if name not in components]


def _read_index(folder: Path, manifest: Manifest) -> tuple[str, dict[str, tuple[str, str]]]:
    """The pipeline's class and its components as (library, class). Nothing but diffusers' own may be named."""
    index = folder / "model_index.json"
    if not index.is_file():
        raise _unsupported(manifest, "has no model_index.json, so it is no diffusers folder")
    read = read_json(index, manifest.name)
    kind = read.get("_class_name")
    if not isinstance(kind, str) or not kind.endswith("Pipeline") or not hasattr(diffusers, kind):
        raise _unsupported(manifest, f"is a {kind}, which diffusers {diffusers.__version__} does not have")
    named = {key: value for key, value in read.items() if isinstance(value, list) and not key.startswith("_")}
    components: dict[str, tuple[str, str]] = {}
    for name, value in named.items():
        match value:
            case [str(library), str(component)] if _is_known(library):
                components[name] = (library, component)
            case [None, None]:
                continue
            case [bool() | int() | float() | None, *_]:
                continue
            case _:
                raise _unsupported(manifest, f"wants {value} as its {name}, which is not diffusers' own")
    return kind, components


def _is_known(library: str) -> bool:
    return library in ("diffusers", "transformers") or hasattr(diffusers.pipelines, library)


def _weighty_parts(
    folder: Path,
    components: dict[str, tuple[str, str]],
    dtype: torch.dtype,
    manifest: Manifest,
    bytes_done: BytesDone,
) -> Iterator[tuple[str, Any]]:
    """Load the components that have weights one by one, so that loading can say how far it is."""
    done = 0
    for name, (library, component) in components.items():
        weights = list((folder / name).glob("*.safetensors"))
        if library not in ("diffusers", "transformers") or not weights or name in _LEFT_OUT:
            continue
        kind = getattr(importlib.import_module(library), component)
        part = kind.from_pretrained(
            folder / name, use_safetensors=True, local_files_only=True, dtype=dtype, **_variant(weights)
        )
        yield name, part.eval()
        done += sum(file.size_bytes for file in manifest.files if file.path.startswith(f"{name}/"))
        bytes_done(done)


def _variant(weights: list[Path]) -> dict[str, str]:
    """`diffusion_pytorch_model.fp16.safetensors` alone must be asked for by its variant."""
    middles = {path.name.split(".")[1] for path in weights if path.name.count(".") == 2}
    is_only = all(path.name.count(".") == 2 for path in weights)
    return {"variant": middles.pop()} if is_only and len(middles) == 1 else {}


def _resident_bytes(pipe: Any) -> int:
    modules = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    tensors = {id(tensor): tensor for module in modules for tensor in [*module.parameters(), *module.buffers()]}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def _unsupported(manifest: Manifest, why: str) -> CraftError:
    return CraftError("UNSUPPORTED_MODEL", f"model {manifest.name} {why}", "`craft models list` shows what can be used")


def _unloadable(manifest: Manifest, exc: Exception, folder: Path) -> CraftError:
    _log.warning("loading %s failed", manifest.name, exc_info=exc)
    damage = next((link for link in _chain(exc) if isinstance(link, SafetensorError)), None)
    first_line = (str(damage or exc).splitlines() or [type(exc).__name__])[0].replace(f"{folder}/", "")
    reason = "CORRUPT_FILE" if damage else "UNSUPPORTED_MODEL"
    return CraftError(reason, f"model {manifest.name} cannot be loaded: {first_line}", "add the model again")


def _chain(exc: BaseException | None) -> Iterator[BaseException]:
    while exc is not None:
        yield exc
        exc = exc.__cause__ or exc.__context__
