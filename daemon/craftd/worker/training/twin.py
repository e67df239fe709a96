"""A module tree of its own over another's tensors: what is changed in the one cannot be seen in the other."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import torch
from torch import nn

Module = TypeVar("Module", bound=nn.Module)


def twin(module: Module) -> Module:
    """The same layers over the same weights, none of which asks for a gradient.

    A tensor that was made under inference mode would break backward, so it is copied.
    """
    memo: dict[int, Any] = {}
    for parameter in module.parameters():
        memo[id(parameter)] = nn.Parameter(_usable(parameter.detach()), requires_grad=False)
    for buffer in module.buffers():
        memo[id(buffer)] = _usable(buffer)
    for part in module.modules():
        for hook in part._forward_hooks.values():
            owner = getattr(hook, "__self__", None)
            memo[id(owner)] = owner
    return copy.deepcopy(module, memo)


def _usable(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.clone() if tensor.is_inference() else tensor
