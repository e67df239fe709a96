"""Text encoders and autoencoders that several loaded models have in common: their weights lie in memory once.

Each model has a module of its own over the same tensors, so that what one does to its module (LoRAs in slots, merged
weights, hooks, a move to another device) is nothing that another sees. A tensor goes when the last of them has gone.
What each of them would do alike (the layout of an autoencoder's weights) is done once, to what they share: `change`.
"""

from __future__ import annotations

import copy
import hashlib
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from craft_protos.dispatch import ModelFile, ModelManifest
from torch import nn

_KEPT = "_craft_pattern"  # where a module holds what others are made of


class _Pattern:
    """A module that nobody computes with: what others are made of."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.changing = threading.Lock()


class SharedEncoders:
    """Those that are in memory, by what makes them equal. Used by the thread that loads, one model at a time."""

    def __init__(self) -> None:
        self._patterns: weakref.WeakValueDictionary[str, _Pattern] = weakref.WeakValueDictionary()

    def find(self, key: str) -> nn.Module | None:
        """A module over the tensors of a model that is loaded."""
        pattern = self._patterns.get(key)
        if pattern is None:
            return None
        module = over_same_tensors(pattern.module)
        _hold(module, pattern)
        return module

    def offer(self, key: str, module: nn.Module) -> None:
        """For models to come, as long as one that has it stays. Before anything is done to it."""
        if key and key not in self._patterns:
            pattern = _Pattern(over_same_tensors(module))
            self._patterns[key] = pattern
            _hold(module, pattern)


def release(pipe: Any) -> None:
    """What a model no longer shares, because its tensors leave the device."""
    for part in pipe.components.values():
        if isinstance(part, nn.Module):
            part.__dict__.pop(_KEPT, None)


def change(module: nn.Module, how: Callable[[nn.Module], object]) -> None:
    """Change a module's tensors, and those that models to come will share with it, so that they stay the same memory.

    Done again, it must change nothing: every module that shares them asks for it.
    """
    pattern = module.__dict__.get(_KEPT)
    if pattern is None:
        how(module)
        return
    with pattern.changing:
        how(pattern.module)
        changed = pattern.module.state_dict()
    for name, own in module.state_dict(keep_vars=True).items():
        own.data = changed[name]


def over_same_tensors(module: nn.Module) -> nn.Module:
    """Another module with parameters and buffers of its own, whose tensors are the same memory."""
    memo: dict[int, Any] = {}
    for part in module.modules():
        for parameter in part.parameters(recurse=False):
            memo[id(parameter)] = nn.Parameter(parameter.data, requires_grad=False)
        for value in (*part.buffers(recurse=False), *vars(part).values()):
            if isinstance(value, torch.Tensor) and not isinstance(value, nn.Parameter):
                memo[id(value)] = value
    kept = module.__dict__.pop(_KEPT, None)
    try:
        return _copied(module, memo)
    finally:
        if kept is not None:
            _hold(module, kept)


def _copied(module: nn.Module, memo: dict[int, Any]) -> nn.Module:
    """As copy.deepcopy does, which takes most of its time for the empty dictionaries that every module has."""
    parts = list(module.modules())
    shells = [type(part).__new__(type(part)) for part in parts]
    memo.update({id(part): shell for part, shell in zip(parts, shells, strict=True)})
    for part, shell in zip(parts, shells, strict=True):
        for name, value in vars(part).items():
            is_empty = isinstance(value, dict) and not value
            shell.__dict__[name] = type(value)() if is_empty else copy.deepcopy(value, memo)
    return shells[0]


def keys(manifest: ModelManifest, precision: str, classes: Mapping[str, str]) -> Mapping[str, str]:
    """What may be shared of a model: component -> a key that equals another model's where the files are the same.

    `classes`: of its components, which must be the same too.
    """
    named = {file.path.partition("/")[0] for file in manifest.files}
    components = {name for name in named if name.startswith("text_encoder")}
    components |= named & ({"vae"} if not _is_fp16(precision) else set())
    found = {
        component: _key(files_of(manifest, component), f"{precision} {manifest.precision} {classes.get(component, '')}")
        for component in sorted(components)
    }
    return {component: key for component, key in found.items() if key}


def _is_fp16(precision: str) -> bool:
    """In which an autoencoder may overflow, so that a model's own is brought to fp32."""
    return precision.startswith(str(torch.float16))


def files_of(manifest: ModelManifest, component: str) -> tuple[ModelFile, ...]:
    """Those of the folder of one component."""
    return tuple(file for file in manifest.files if file.path.startswith(f"{component}/"))


def _key(files: Sequence[ModelFile], precision: str) -> str:
    """Of what they hold, whatever they are called; "" where they hold no weights, as a checkpoint's."""
    if not any(file.path.endswith((".safetensors", ".gguf")) for file in files):
        return ""
    lines = sorted(f"{file.sha256} {file.path.rpartition('.')[2]}" for file in files)
    return hashlib.sha256("\n".join([precision, *lines]).encode()).hexdigest()


def _hold(module: nn.Module, pattern: _Pattern) -> None:
    module.__dict__[_KEPT] = pattern
