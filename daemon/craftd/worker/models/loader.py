"""A diffusers folder, or a checkpoint of one file -> a runner: the family of its architecture, else the generic one."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import torch
from craft_protos import rungs
from craft_protos.dispatch import CONTROLNET, ModelManifest
from craft_protos.reasons import CraftError
from diffusers.modular_pipelines.modular_pipeline import ModularPipeline
from safetensors import SafetensorError

from craftd import eviction, modular, offload
from craftd.architectures import detect
from craftd.architectures.architecture import GENERIC, Architecture
from craftd.architectures.registry import UPSCALER
from craftd.architectures.rows.shared import UNUSED_PARTS
from craftd.worker.engine.denoiser import Denoiser
from craftd.worker.engine.progress_hooks import ProgressHooks
from craftd.worker.families import FAMILIES
from craftd.worker.families.base import Runner
from craftd.worker.families.generic import PipelineRunner
from craftd.worker.families.modular import ModularRunner
from craftd.worker.inputs.canvases import Canvases
from craftd.worker.inputs.controls import ControlsAhead
from craftd.worker.inputs.references import References
from craftd.worker.lora.adapter_manager import AdapterManager
from craftd.worker.lora.layer import held_bytes
from craftd.worker.lora.reader import Reader
from craftd.worker.lora.slots import Limits
from craftd.worker.lora.targets import Targets
from craftd.worker.models import chat_templates, control, memory, processors, sharing
from craftd.worker.models import modular as modular_pipelines
from craftd.worker.models import offload as models_offload
from craftd.worker.models.component_file import load_component
from craftd.worker.models.folder import materialised, read_json
from craftd.worker.models.offload import Offloading
from craftd.worker.models.sharing import SharedEncoders
from craftd.worker.models.single_file import SingleFile, absent, is_single_file
from craftd.worker.process.device import DTYPES, Device
from craftd.worker.quantized import packing
from craftd.worker.quantized.layers import form_of

_log = logging.getLogger(__name__)

COMPONENT = "component"  # what the front calls a part that is one file, whatever its layout
BytesDone = Callable[[int], None]


@dataclass(frozen=True)
class Loader:
    """Loads models from a store of files onto one device."""

    files: Path
    work_folder: Path
    device: Device
    reader: Reader
    limits: Limits = field(default_factory=Limits)
    hooks: ProgressHooks = field(default_factory=ProgressHooks)
    encoders: SharedEncoders = field(default_factory=SharedEncoders)
    offload: str = rungs.AUTO

    def load(self, manifest: ModelManifest, bytes_done: BytesDone) -> Runner:
        """The model, on the device. Raises UNSUPPORTED_MODEL, UNSAFE_PATH, CORRUPT_FILE, OUT_OF_MEMORY."""
        with materialised(manifest, self.files, self.work_folder) as folder:
            try:
                with memory.recognised():
                    return self._load(manifest, folder, bytes_done)
            except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as exc:
                if isinstance(exc, torch.OutOfMemoryError):
                    raise
                raise _unloadable(manifest, exc, folder) from exc

    def _load(self, manifest: ModelManifest, folder: Path, bytes_done: BytesDone) -> Runner:
        if manifest.family == CONTROLNET:
            return control.load(manifest, folder, self.device)
        if manifest.family == UPSCALER.family:
            return self._upscaler(manifest, folder)
        kind, components = _read_index(folder, manifest)
        architecture = detect.of_pipeline(kind, None)
        family = "" if manifest.family == GENERIC else architecture.family
        device = self._computing(manifest, runs_in_fp16=bool(family) and architecture.runs_in_fp16)
        left_out = dict.fromkeys(_left_out(architecture, components))
        own = processors.made_by_craft({name: one for name, one in components.items() if name not in left_out})
        left_out |= dict.fromkeys(own)
        assembled = None
        if modular_pipelines.is_one(folder):
            assembled = modular_pipelines.begin(folder, kind, architecture.unused_parts, manifest.name)
            components = {name: one for name, one in components.items() if name in assembled.component_names}
            modular_pipelines.check_complete(assembled, components, manifest.name)
        if is_single_file(folder):
            left_out |= dict.fromkeys(absent(folder, components))
            given = dict(self._weighty_parts(folder, components, device.dtype, manifest, bytes_done))
            single = SingleFile(folder, kind, components, device.dtype, manifest.precision, given)
            parts: dict[str, Any] = single.load(partial(bytes_done, 0))
        else:
            parts = dict(self._weighty_parts(folder, components, device.dtype, manifest, bytes_done))
        parts |= processors.of_texts(folder, components, manifest.name)
        if assembled is None:
            kinds: Any = diffusers
            pipe = kinds.DiffusionPipeline.from_pretrained(
                folder, dtype=device.dtype, use_safetensors=True, local_files_only=True, **parts, **left_out
            )
            pipe.set_progress_bar_config(disable=True)
        else:
            pipe = assembled
            light = {name: one for name, one in components.items() if name not in left_out}
            modular_pipelines.finish(pipe, folder, light, parts)
        processors.attach(pipe, folder, own)
        chat_templates.guard(pipe, manifest.name)
        offloading = self._place(pipe, device)
        if offloading is None or offloading.rung == rungs.NONE:
            self._offer(pipe, _shared(manifest, device.dtype, components))
        self.hooks.watch(pipe)
        bytes_done(manifest.size_bytes)
        return self._runner(pipe, device, offloading, family, _notice(manifest, device))

    def _upscaler(self, manifest: ModelManifest, folder: Path) -> Runner:
        """One without a file is Lanczos."""
        from craftd.worker.upscaling import network, reading, upscaler  # and with them Spandrel, for whom enlarges

        paths = [folder / file.path for file in manifest.files]
        found = network.Network(reading.read(paths[0], manifest.name), self.device) if paths else None
        return upscaler.Upscaler(found, Canvases(self.reader, 1), self.device.place.type)

    def _place(self, pipe: Any, device: Device) -> Offloading | None:
        """Bring the networks to the device, or as much of them as there is room for. None: they stay where they are."""
        if device.place.type == "cuda":
            offloading = models_offload.begin(pipe, Targets(pipe).denoiser, device.place)
            budget = eviction.budget_bytes(device.total_bytes)
            chosen = offload.choose(offloading.sizes, offloading.denoiser, budget)
            offloading.go_to(chosen if self.offload == rungs.AUTO else self.offload)
            return offloading
        if not device.is_cpu:
            pipe.to(device.place)
        return None

    def _computing(self, manifest: ModelManifest, *, runs_in_fp16: bool) -> Device:
        """The device with the precision that this model computes in. Raises UNSUPPORTED_MODEL."""
        if manifest.precision == "fp8" and self.device.place.type == "mps":
            raise _unsupported(manifest, "is to be kept in fp8, which this device cannot read", "use --precision int8")
        asked = manifest.precision if manifest.precision in DTYPES else self.device.precision
        device = replace(self.device, precision=asked)
        return device if runs_in_fp16 else _in_range(device)

    def _weighty_parts(
        self,
        folder: Path,
        components: dict[str, tuple[str, str]],
        dtype: torch.dtype,
        manifest: ModelManifest,
        bytes_done: BytesDone,
    ) -> Iterator[tuple[str, Any]]:
        """Load the components that have weights one by one, so that loading can say how far it is."""
        done, keys = 0, _shared(manifest, dtype, components)
        for name, where in components.items():
            weights = [*(folder / name).glob("*.safetensors"), *(folder / name).glob("*.gguf")]
            if where[0] not in ("diffusers", "transformers") or not weights or name in UNUSED_PARTS:
                continue
            part = self.encoders.find(keys.get(name, ""))
            yield name, part if part is not None else _network(folder / name, weights, where, dtype, manifest)
            done += sum(file.size_bytes for file in manifest.files if file.path.startswith(f"{name}/"))
            bytes_done(done)

    def _offer(self, pipe: Any, keys: Mapping[str, str]) -> None:
        """Have models to come share its text encoders; those of a checkpoint have no files of their own."""
        for name, key in keys.items():
            if isinstance(pipe.components.get(name), torch.nn.Module):
                self.encoders.offer(key, pipe.components[name])

    def _runner(self, pipe: Any, device: Device, offloading: Offloading | None, family: str, notice: str) -> Runner:
        weights = form_of(next(iter(Targets(pipe).components.values()), torch.nn.Module()))
        how: dict[str, Any] = {"precision": device.precision, "weights": weights, "notice": notice}
        resident = _resident_bytes(pipe) if offloading is None else offloading.peak_bytes
        how |= {"resident_bytes": resident, "device": device.place, "offloading": offloading}
        if family not in FAMILIES:
            kind = ModularRunner if isinstance(pipe, ModularPipeline) else PipelineRunner
            return kind(pipe, self._adapters(pipe, merges_only=True), **how)
        drawing = FAMILIES[family](pipe, device.place)
        canvases, references = Canvases(self.reader, drawing.granularity), References(self.reader, drawing.lay)
        controls = ControlsAhead(self.reader, drawing.granularity)
        return Denoiser(drawing, self._adapters(pipe), canvases, references, controls, pipe=pipe, **how)

    def _adapters(self, pipe: Any, *, merges_only: bool = False) -> AdapterManager:
        return AdapterManager(Targets(pipe), self.reader, self.device.place, self.limits, merges_only=merges_only)


def _in_range(device: Device) -> Device:
    """Newer transformers overflow in fp16; bf16 has fp32's range."""
    return replace(device, precision="bf16") if device.precision == "fp16" and not device.is_cpu else device


def _notice(manifest: ModelManifest, device: Device) -> str:
    """What its user asked for and does not get."""
    if manifest.precision not in DTYPES or manifest.precision == device.precision:
        return ""
    return f"{manifest.name} is computed in {device.precision}: it would overflow in {manifest.precision}"


def _left_out(architecture: Architecture, components: dict[str, tuple[str, str]]) -> list[str]:
    """What the pipeline is to be made without."""
    unused = [name for name in components if name in architecture.unused_parts]
    return unused + [name for name in architecture.optional_parts if name not in components]


def _read_index(folder: Path, manifest: ModelManifest) -> tuple[str, dict[str, tuple[str, str]]]:
    """The pipeline's class and its components as (library, class). Nothing but diffusers' own may be named."""
    is_modular = modular_pipelines.is_one(folder)
    index = folder / (modular.INDEX if is_modular else "model_index.json")
    if not index.is_file():
        raise _unsupported(manifest, "has no model_index.json, so it is no diffusers folder")
    read = modular.plain(read_json(index, manifest.name)) if is_modular else read_json(index, manifest.name)
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


def _shared(manifest: ModelManifest, dtype: torch.dtype, components: dict[str, tuple[str, str]]) -> Mapping[str, str]:
    return sharing.keys(manifest, str(dtype), {name: kind for name, (_, kind) in components.items()})


def _network(
    folder: Path, weights: list[Path], where: tuple[str, str], dtype: torch.dtype, manifest: ModelManifest
) -> Any:
    """Of diffusers' and transformers' own files, or of a single one in whatever layout."""
    single = next((path for path in weights if path.stem == COMPONENT), None)
    if single is not None:
        name = f"{folder.name}/{single.name}"
        return load_component(single, folder, where, dtype, manifest.precision, name=name)
    library, component = where
    kind = getattr(importlib.import_module(library), component)
    part = kind.from_pretrained(folder, use_safetensors=True, local_files_only=True, dtype=dtype, **_variant(weights))
    packing.pack(part, manifest.precision)
    return part.eval()


def _variant(weights: list[Path]) -> dict[str, str]:
    """`diffusion_pytorch_model.fp16.safetensors` alone must be asked for by its variant."""
    middles = {path.name.split(".")[1] for path in weights if path.name.count(".") == 2}
    is_only = all(path.name.count(".") == 2 for path in weights)
    return {"variant": middles.pop()} if is_only and len(middles) == 1 else {}


def _resident_bytes(pipe: Any) -> int:
    return held_bytes(part for part in pipe.components.values() if isinstance(part, torch.nn.Module))


def _unsupported(
    manifest: ModelManifest, why: str, hint: str = "`craft models list` shows what can be used"
) -> CraftError:
    return CraftError("UNSUPPORTED_MODEL", f"model {manifest.name} {why}", hint)


def _unloadable(manifest: ModelManifest, exc: Exception, folder: Path) -> CraftError:
    _log.warning("loading %s failed", manifest.name, exc_info=exc)
    damage = next((link for link in _chain(exc) if isinstance(link, SafetensorError)), None)
    first_line = (str(damage or exc).splitlines() or [type(exc).__name__])[0].replace(f"{folder}/", "")
    reason = "CORRUPT_FILE" if damage else "UNSUPPORTED_MODEL"
    return CraftError(reason, f"model {manifest.name} cannot be loaded: {first_line}", "add the model again")


def _chain(exc: BaseException | None) -> Iterator[BaseException]:
    while exc is not None:
        yield exc
        exc = exc.__cause__ or exc.__context__
