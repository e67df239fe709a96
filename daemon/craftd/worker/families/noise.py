"""Random numbers of rows' own generators, which are the CPU's: a seed gives one picture on every device."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import torch
from diffusers.utils.torch_utils import randn_tensor

from craftd.worker.process.device import uploaded


def drawn(
    shape: Sequence[int],
    generator: Any = None,
    device: torch.device | None = None,
    dtype: torch.dtype | None = None,
    layout: torch.layout | None = None,
) -> torch.Tensor:
    """diffusers' `randn_tensor`, but for the waiting: that one copies to a device once it has done all it was told."""
    is_of_cpu = isinstance(generator, torch.Generator) and generator.device.type == "cpu"
    if not is_of_cpu or device is None or device.type == "cpu":
        numbers: torch.Tensor = randn_tensor(
            tuple(shape), generator=generator, device=device, dtype=dtype, layout=layout
        )
        return numbers
    return uploaded(torch.randn(tuple(shape), generator=generator, dtype=dtype), device)


def lend(scheduler: object) -> None:
    """Have a scheduler of diffusers' draw its steps' noise by `drawn`."""
    for kind in type(scheduler).__mro__:
        module = sys.modules[kind.__module__]
        if getattr(module, "randn_tensor", None) is randn_tensor:
            module.__dict__["randn_tensor"] = drawn
