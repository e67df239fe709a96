"""A LoRA's file: every tensor by name, the part of a layer that its name says it is, and nothing believed.

Metadata never becomes configuration. Three numbers of it are read as numbers, because diffusers saves them
nowhere else: an adapter's alpha, its rank and whether alpha counts by the rank's root.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from craft_protos.reasons import CraftError
from safetensors import SafetensorError, safe_open

# The end of a tensor's name -> what it is to its layer. The first that fits counts.
_ROLES = {
    ".lora_A.weight": "down",
    ".lora_B.weight": "up",
    ".lora_A.default.weight": "down",
    ".lora_B.default.weight": "up",
    ".lora_down.weight": "down",
    ".lora_up.weight": "up",
    ".lora_mid.weight": "mid",
    ".lora.down.weight": "down",
    ".lora.up.weight": "up",
    ".lora_linear_layer.down.weight": "down",
    ".lora_linear_layer.up.weight": "up",
    ".lora_magnitude_vector.default.weight": "magnitude",
    ".lora_magnitude_vector.weight": "magnitude",
    ".lora_magnitude_vector": "magnitude",
    ".dora_scale": "dora_scale",
    ".alpha": "alpha",
    ".down.weight": "down",  # ...to_q_lora.down.weight
    ".up.weight": "up",
}
# A part of a tensor's name -> the kind of adapter it belongs to.
_OTHER_KINDS = {
    ".lokr_": "LoKr",
    ".hada_": "LoHa",
    ".oft_": "OFT",
    ".boft_": "BOFT",
    "oft_blocks": "OFT",
    "oft_diag": "OFT",
    ".on_input": "IA3",
    ".ia3_": "IA3",
    ".lora_E": "AdaLoRA",
    "vera_lambda": "VeRA",
    ".a1.weight": "GLoRA",
    ".b1.weight": "GLoRA",
    "lora_controlnet": "Control-LoRA",
    ".diff_b": "full differences",
    ".diff": "full differences",
}
_MOST_TENSORS = 100_000
_MOST_METADATA_BYTES = 1 << 20
_ADAPTER_METADATA = "lora_adapter_metadata"


@dataclass(frozen=True)
class Scaling:
    """How strong an adapter is that says so in its metadata: of one component, as diffusers saves it."""

    alpha: float
    by_root: bool = False  # rank-stabilised (Kalajdzievski 2023)

    def scale(self, rank: int) -> float:
        return self.alpha / (math.sqrt(rank) if self.by_root else rank)


@dataclass(frozen=True)
class LoraFile:
    """The tensors, by the layer's path in the file and their role; `unknown` have none."""

    name: str
    tensors: Mapping[str, torch.Tensor]
    paths: Mapping[str, Mapping[str, str]]  # path -> role -> tensor's name
    unknown: tuple[str, ...]
    scalings: Mapping[str, Scaling]  # by component


@contextmanager
def opened(path: Path, name: str, size_bytes: int = 0) -> Iterator[LoraFile]:
    """The file, its tensors read where they are used. Raises CORRUPT_FILE, UNSUPPORTED_LORA."""
    _check_size(path, name, size_bytes)
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            names = list(file.keys())
            if len(names) > _MOST_TENSORS:
                raise _corrupt(name, f"holds {len(names)} tensors where {_MOST_TENSORS} are the most")
            _check_kind(name, names)
            yield parsed(name, _Tensors(file, names), _scalings(file.metadata()))
    except (SafetensorError, OSError) as exc:
        raise _corrupt(name, f"cannot be read: {exc}") from exc


def parsed(name: str, tensors: Mapping[str, torch.Tensor], scalings: Mapping[str, Scaling]) -> LoraFile:
    """Sort tensors by what their names say."""
    paths: dict[str, dict[str, str]] = defaultdict(dict)
    unknown = []
    for key in tensors:
        path, role = _role(key)
        if role and role not in paths[path]:
            paths[path][role] = key
        else:
            unknown.append(key)
    return LoraFile(name, tensors, paths, tuple(unknown), scalings)


def _role(key: str) -> tuple[str, str]:
    for ending, role in _ROLES.items():
        if key.endswith(ending):
            return key.removesuffix(ending), role
    return key, ""


class _Tensors(Mapping[str, torch.Tensor]):
    """Reads a tensor when it is asked for."""

    def __init__(self, file: Any, names: list[str]) -> None:
        self._file = file
        self._names = dict.fromkeys(names)

    def __getitem__(self, name: str) -> torch.Tensor:
        if name not in self._names:
            raise KeyError(name)
        tensor: torch.Tensor = self._file.get_tensor(name)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _check_size(path: Path, name: str, size_bytes: int) -> None:
    if not path.is_file():
        raise _corrupt(name, "is not in the store")
    found = path.stat().st_size
    if size_bytes and found != size_bytes:
        raise _corrupt(name, f"has {found} bytes where {size_bytes} were expected")


def _check_kind(name: str, names: list[str]) -> None:
    for key in names:
        for part, kind in _OTHER_KINDS.items():
            if part in key:
                raise CraftError(
                    "UNSUPPORTED_LORA",
                    f"LoRA {name} is of the kind {kind} (its tensor {key}), which craft does not apply",
                    "use a LoRA, LoCon or DoRA file",
                )


def _scalings(metadata: dict[str, str] | None) -> dict[str, Scaling]:
    """Anything else in the metadata is left alone."""
    text = (metadata or {}).get(_ADAPTER_METADATA, "")
    if not text or len(text) > _MOST_METADATA_BYTES:
        return {}
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    components = {key.removesuffix(".lora_alpha") for key in found if key.endswith(".lora_alpha")}
    alphas = {name: found[f"{name}.lora_alpha"] for name in components}
    return {
        name: Scaling(float(alpha), found.get(f"{name}.use_rslora") is True)
        for name, alpha in alphas.items()
        if isinstance(alpha, int | float) and 0 < alpha < 1e6
    }


def _corrupt(name: str, why: str) -> CraftError:
    return CraftError("CORRUPT_FILE", f"LoRA {name} {why}", f"add the LoRA {name} again")
