"""Forms that only diffusers knows: its own converter, with each result traced back to the file's tensors.

The tensors go through the converter as a subclass that remembers which of the file's tensors it was
computed from, so that whatever the converter leaves out is noticed.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from craftd.worker.lora import reading
from craftd.worker.lora.file import LoraFile
from craftd.worker.lora.fit import Fit
from craftd.worker.lora.strength import Strengths

_log = logging.getLogger(__name__)

# What converters raise for a form that they do not know either.
_UNKNOWN = (ValueError, KeyError, IndexError, AssertionError, AttributeError, TypeError, RuntimeError)


@dataclass(frozen=True)
class Converted:
    """The file in diffusers' form, and which of the original's tensors each came from."""

    file: LoraFile
    original: LoraFile
    sources: Mapping[str, frozenset[str]]

    def unmatched(self, found: Fit) -> dict[str, str]:
        """The original's tensors that are in nothing that fits, and why; an alpha shares its layer's fate."""
        used = set().union(*(names for key, names in self.sources.items() if key not in found.unmatched))
        used |= {key for key in self.original.tensors if _is_alpha_of(key, used)}
        left_out = sorted(set(self.original.tensors) - used)
        whys = {name: why for key, why in found.unmatched.items() for name in self.sources.get(key, ())}
        return {key: whys.get(key) or self.original.reading.unknown.get(key, "") for key in left_out}


def converted(original: LoraFile, pipeline: type) -> Converted | None:
    """None where diffusers cannot convert it either."""
    convert: Any = getattr(pipeline, "lora_state_dict", None)
    if convert is None:
        return None
    traced = {key: Traced.of(original.tensors[key], key) for key in original.tensors}
    try:
        found = convert(traced)
    except _UNKNOWN as exc:
        _log.info("diffusers does not convert LoRA %s: %s", original.name, exc)
        return None
    states, alphas = found if isinstance(found, tuple) else (found, None)
    traces = {key: value for key, value in states.items() if isinstance(value, Traced)}
    given = {key: torch.tensor(float(alpha)) for key, alpha in (alphas or {}).items()}
    sources = {key: tensor.sources for key, tensor in traces.items()}
    plain = {key: tensor.as_subclass(torch.Tensor) for key, tensor in traces.items()}
    tensors = plain | given
    shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    return Converted(LoraFile(reading.sort(original.name, shapes, Strengths({})), tensors), original, sources)


class Traced(torch.Tensor):
    """A tensor that knows the names of those it was computed from."""

    sources: frozenset[str] = frozenset()

    @classmethod
    def of(cls, tensor: torch.Tensor, name: str) -> Traced:
        traced = tensor.as_subclass(cls)
        traced.sources = frozenset([name])
        return traced

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        plain: Any = super()
        result = plain.__torch_function__(function, types, args, kwargs or {})
        sources = _sources([*args, *(kwargs or {}).values()])
        for one in result if isinstance(result, tuple | list) else (result,):
            if isinstance(one, Traced):
                one.sources = sources
        return result


def _sources(values: list[Any]) -> frozenset[str]:
    found: frozenset[str] = frozenset()
    for value in values:
        if isinstance(value, Traced):
            found |= value.sources
        elif isinstance(value, tuple | list):
            found |= _sources(list(value))
    return found


def _is_alpha_of(key: str, used: set[str]) -> bool:
    path = key.removesuffix(".alpha")
    return path != key and any(f"{path}{ending}" in used for ending in (".lora_down.weight", ".lora_A.weight"))
