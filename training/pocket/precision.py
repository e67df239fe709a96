"""Half precision where the processor has matrix units for it; the weights stay in full precision.

On a CPU with AMX, bfloat16 multiplies matrices several times faster than float32. One kernel does
not: the fused attention's backward pass takes as long in bfloat16 as all the rest of a step, so
attention is spelled out there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


def fast_dtype(device: torch.device) -> torch.dtype:
    """The type in which this device multiplies matrices fastest."""
    has_units = torch.cuda.is_bf16_supported() if device.type == "cuda" else _has_amx()
    return torch.bfloat16 if has_units else torch.float32


@contextmanager
def fast(device: torch.device) -> Iterator[None]:
    """Networks called in here compute in the fast type. The backward pass may run outside."""
    dtype = fast_dtype(device)
    if dtype == torch.float32:
        yield
        return
    with torch.autocast(device.type, dtype), _attention(device):
        yield


@contextmanager
def _attention(device: torch.device) -> Iterator[None]:
    if device.type != "cpu":
        yield
        return
    with sdpa_kernel([SDPBackend.MATH]):
        yield


def _has_amx() -> bool:
    return bool(torch.cpu.get_capabilities().get("amx_bf16", False))
