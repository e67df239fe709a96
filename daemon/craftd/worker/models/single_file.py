"""A checkpoint of one file -> the diffusers pipeline. What it lacks lies beside it: configurations and vocabularies.

The original layout is converted by diffusers; in diffusers' own layout each part's tensors begin with its name.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import diffusers
import torch
from craft_protos.reasons import CraftError
from safetensors import safe_open

from craftd import scales
from craftd.architectures.architecture import LDM
from craftd.worker.models.component_file import Component
from craftd.worker.quantized import packing, stored

CHECKPOINT = "checkpoint.safetensors"
_T5 = "text_encoders.t5xxl.transformer."

Components = Mapping[str, tuple[str, str]]  # part -> (library, class)
_Tensors = dict[str, torch.Tensor]


def is_single_file(folder: Path) -> bool:
    return (folder / CHECKPOINT).is_file()


def absent(folder: Path, components: Components) -> list[str]:
    """Parts that this checkpoint does not have, so that their configurations were left out."""
    return [name for name in components if not (folder / name).is_dir()]


@dataclass(frozen=True)
class SingleFile:
    """A checkpoint, and the folder in which its configurations lie."""

    folder: Path
    pipeline: str
    components: Components
    dtype: torch.dtype
    precision: str = ""  # that the networks are kept in
    given: Mapping[str, Any] = field(default_factory=dict)  # parts that come from files of their own

    def load(self, part_done: Callable[[], None]) -> dict[str, Any]:
        """The parts with weights, ready to make a pipeline of. Raises CORRUPT_FILE, and what the libraries raise."""
        load = self._of_diffusers_layout if self._is_diffusers_layout() else self._of_original_layout
        try:
            found = load(part_done)
        except NotImplementedError as exc:  # a tensor that never got a place in memory was to be converted
            raise _incomplete(" or ".join(self.weighty), "some tensors") from exc
        for name, part in found.items():
            _check_whole(name, part)
            packing.pack(part, self.precision)
        return {**found, **self.given}

    @property
    def path(self) -> Path:
        return self.folder / CHECKPOINT

    @cached_property
    def weighty(self) -> Components:
        """Parts of the file that are networks: those have a config.json."""
        return {
            name: where
            for name, where in self.components.items()
            if name not in self.given
            and where[0] in ("diffusers", "transformers")
            and (self.folder / name / "config.json").is_file()
        }

    def _is_diffusers_layout(self) -> bool:
        with safe_open(self.path, "pt") as file:
            beginnings = {key.partition(".")[0] for key in file.keys()}  # noqa: SIM118 - no mapping
        return all(name in beginnings for name in self.weighty)

    def _of_diffusers_layout(self, part_done: Callable[[], None]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, where in self.weighty.items():
            tensors = self._tensors(f"{name}.")
            if where[0] == "transformers" or _is_packed(tensors):
                found[name] = self._part(name, tensors)
            else:
                found[name] = _class(where).from_single_file(
                    tensors, config=str(self.folder), subfolder=name, local_files_only=True, dtype=self.dtype
                )
            part_done()
        return found

    def _of_original_layout(self, part_done: Callable[[], None]) -> dict[str, Any]:
        """diffusers loads all at once, but for T5, whose word embedding it would leave empty, and packed networks."""
        self._check_scales()
        given: dict[str, Any] = {**dict.fromkeys(absent(self.folder, self.components)), **self.given}
        for name in [name for name, where in self.weighty.items() if where[1] == "T5EncoderModel"]:
            given[name] = self._part(name, self._tensors(_T5))
        for name in [name for name in self.weighty if name in ("transformer", "unet")]:
            if _is_packed(tensors := self._tensors(LDM)):
                given[name] = self._part(name, tensors)
        pipeline: Any = getattr(diffusers, self.pipeline)
        pipe = pipeline.from_single_file(
            str(self.path), config=str(self.folder), local_files_only=True, dtype=self.dtype, **given
        )
        for _ in self.weighty:
            part_done()
        return {name: pipe.components[name] for name in self.weighty}

    def _check_scales(self) -> None:
        """Those of other parts would be left out without a word. Raises UNSUPPORTED_MODEL."""
        with safe_open(self.path, "pt") as file:
            found = [key for key in file.keys() if key.endswith(scales.WEIGHT_SCALES)]  # noqa: SIM118 - no mapping
        if others := [key for key in found if not key.startswith((LDM, _T5))]:
            why = f"the checkpoint's {others[0]} scales a part that craft reads as numbers alone"
            raise CraftError("UNSUPPORTED_MODEL", why, "get the checkpoint in fp16, or its parts as files of their own")

    def _part(self, name: str, tensors: _Tensors) -> Any:
        """What is packed in the file stays packed."""
        if not tensors:
            raise _incomplete(name, "all of its tensors")
        place, where = self.folder / name, self.weighty[name]
        found = stored.packed(tensors, {}, CHECKPOINT)
        return Component(place, where, self.dtype, self.precision, CHECKPOINT).of(found)

    def _tensors(self, prefix: str) -> _Tensors:
        """Those whose names begin so, without that beginning."""
        with safe_open(self.path, "pt") as file:
            keys = [key for key in file.keys() if key.startswith(prefix)]  # noqa: SIM118 - no mapping
            return {key.removeprefix(prefix): file.get_tensor(key) for key in keys}


def _is_packed(tensors: _Tensors) -> bool:
    return any(tensor.element_size() == 1 and tensor.ndim > 1 for tensor in tensors.values())


def _class(where: tuple[str, str]) -> Any:
    library, name = where
    return getattr(importlib.import_module(library), name)


def _check_whole(name: str, part: Any) -> None:
    """Tensors that the file did not have are still without a place in memory."""
    empty = [key for key, tensor in part.named_parameters() if tensor.is_meta]
    if empty:
        raise _incomplete(name, f"{len(empty)} tensors, {empty[0]} among them")


def _incomplete(name: str, what: str) -> CraftError:
    return CraftError("CORRUPT_FILE", f"the checkpoint lacks, of its {name}, {what}", "get the whole checkpoint")
