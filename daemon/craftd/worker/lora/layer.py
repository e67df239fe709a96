"""A layer that LoRAs can change. It says what it is, so that nobody looks at a weight that may be packed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn
from torch.nn import functional

Weight = Callable[[], torch.Tensor]


@runtime_checkable
class Quantized(Protocol):
    """What a layer says of itself that does not hold its weight as numbers to compute with.

    Its sides are those of torch's own layers: in_features and out_features, or what a convolution has.
    """

    compute_dtype: torch.dtype

    @property
    def size_bytes(self) -> int:
        """The bytes that it holds in memory."""
        ...

    def dense_weight(self) -> torch.Tensor:
        """Its weight as it computes with it: outputs, inputs, and of a convolution its kernel."""
        ...


class Layer:
    """A linear layer, a convolution or a norm of a loaded network."""

    def __init__(self, module: nn.Module) -> None:
        self.module: Any = module
        self.is_quantized = isinstance(module, Quantized)

    @classmethod
    def of(cls, module: nn.Module) -> Layer | None:
        """The layer of a module, or None where no LoRA can change that."""
        return cls(module) if isinstance(module, nn.Linear | nn.Conv2d | Quantized) or _is_norm(module) else None

    @property
    def is_norm(self) -> bool:
        """Whether it scales its inputs, each by a number: nothing but a full difference changes that."""
        return _is_norm(self.module)

    @property
    def is_convolution(self) -> bool:
        return hasattr(self.module, "kernel_size")

    @property
    def outputs(self) -> int:
        if self.is_norm:
            return int(self.module.weight.shape[0])
        return int(self.module.out_channels if self.is_convolution else self.module.out_features)

    @property
    def inputs(self) -> tuple[int, ...]:
        """The inputs of each output; for a convolution also its kernel's height and width."""
        if self.is_convolution:
            return (self.module.in_channels // self.module.groups, *self.module.kernel_size)
        if self.is_norm:
            return ()
        return (int(self.module.in_features),)

    @property
    def shape(self) -> tuple[int, ...]:
        """Outputs and inputs, as a weight that is not packed has them."""
        return (self.outputs, *self.inputs)

    @property
    def dtype(self) -> torch.dtype:
        """The precision that it computes in."""
        dtype: torch.dtype = self.module.compute_dtype if self.is_quantized else self.module.weight.dtype
        return dtype

    @property
    def fits_slots(self) -> bool:
        """Whether a slot can hold its change."""
        return not self.is_norm and (
            not self.is_convolution or (self.module.groups == 1 and self.module.padding_mode == "zeros")
        )

    def compute(self, x: torch.Tensor) -> torch.Tensor:
        """What the layer itself makes of `x`, also while its module's forward is replaced."""
        y: torch.Tensor = type(self.module).forward(self.module, x)
        return y

    def weight(self) -> Weight:
        """A function that reads the weight it has now; valid in any thread, also once another is in its place."""
        if self.is_quantized:
            read: Weight = self.module.dense_weight
            return read
        own = self.module.weight.data
        return lambda: own

    def replace(self, weight: torch.Tensor) -> Callable[[], None]:
        """Have the layer compute with another weight, until what this returns is called."""
        module = self.module
        if self.is_quantized:
            module.__dict__["forward"] = lambda x: self._computed(x, weight.to(x.device))
            return lambda: module.__dict__.pop("forward", None)
        own = module.weight.data
        module.weight.data = weight.to(own.device)
        return lambda: setattr(module.weight, "data", own)

    def add_to_bias(self, difference: torch.Tensor) -> Callable[[], None]:
        """Have the layer compute with its bias and this, until what this returns is called."""
        module, own = self.module, self.module.bias.data
        module.bias.data = (own.float() + difference.to(own.device)).to(own.dtype)
        return lambda: setattr(module.bias, "data", own)

    def _computed(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """What a quantized layer makes of `x` with another weight."""
        own = self.module
        if not self.is_convolution:
            return functional.linear(x, weight, own.bias)
        return functional.conv2d(x, weight, own.bias, own.stride, own.padding, own.dilation, own.groups)


def _is_norm(module: nn.Module) -> bool:
    """Those that LyCORIS trains, with a weight of their own."""
    return isinstance(module, nn.LayerNorm | nn.GroupNorm) and getattr(module.weight, "ndim", 0) == 1


def held_bytes(modules: Iterable[nn.Module]) -> int:
    """What these networks hold in memory, a tensor that they share counted once; a quantized layer says it itself."""
    held: dict[int, int] = {}
    for part in (part for module in modules for part in module.modules()):
        if isinstance(part, Quantized):
            held[id(part)] = part.size_bytes
        else:
            own = [*part.parameters(recurse=False), *part.buffers(recurse=False)]
            held |= {id(tensor): tensor.numel() * tensor.element_size() for tensor in own}
    return sum(held.values())
