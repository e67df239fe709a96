"""What packed layers compute, with gradients for what goes in: backward unpacks a weight again instead of keeping it.

torch's own product would keep each layer's unpacked weight until the gradient has passed, and so the whole network
unpacked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.nn import functional, grad

Unpack = Callable[[], torch.Tensor]

_input_gradient: Any = grad.conv2d_input


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, unpack: Unpack) -> torch.Tensor:
        ctx.unpack, ctx.dtype = unpack, x.dtype
        return functional.linear(x, unpack())

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (gradient,) = gradients
        return (gradient @ ctx.unpack().to(gradient.dtype)).to(ctx.dtype), None


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, unpack: Unpack, how: Mapping[str, Any]) -> torch.Tensor:
        ctx.unpack, ctx.dtype, ctx.shape, ctx.how = unpack, x.dtype, x.shape, how
        return functional.conv2d(x, unpack(), **how)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (gradient,) = gradients
        own = _input_gradient(ctx.shape, ctx.unpack().to(gradient.dtype), gradient, **ctx.how)
        return own.to(ctx.dtype), None, None


def linear(x: torch.Tensor, unpack: Unpack) -> torch.Tensor:
    return _apply(_Linear, x, unpack) if _is_learned(x) else functional.linear(x, unpack())


def convolution(x: torch.Tensor, unpack: Unpack, how: Mapping[str, Any]) -> torch.Tensor:
    return _apply(_Convolution, x, unpack, how) if _is_learned(x) else functional.conv2d(x, unpack(), **how)


def _apply(function: Any, *given: Any) -> torch.Tensor:
    made: torch.Tensor = function.apply(*given)
    return made


def _is_learned(x: torch.Tensor) -> bool:
    return torch.is_grad_enabled() and x.requires_grad
