"""Layers that keep their weights packed, and unpack them whenever they compute.

They answer what `craftd.worker.lora.layer` asks of a layer. What is packed lies in buffers of bytes: those go along to
a device, and nothing that casts a network's numbers changes them.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import nn

from craftd.worker.quantized import products
from craftd.worker.quantized.weight import PackedWeight


class _PackedLayer(nn.Module):
    """What both kinds of layers have in common."""

    rows: torch.Tensor
    scale_bytes: torch.Tensor | None
    bias: torch.Tensor | None

    def __init__(self, weight: PackedWeight, bias: torch.Tensor | None, compute_dtype: torch.dtype) -> None:
        super().__init__()
        self.form, self.shape, self.compute_dtype = weight.form, weight.shape, compute_dtype
        self.register_buffer("rows", weight.rows)
        self.register_buffer("scale_bytes", None if weight.scale is None else weight.scale.view(torch.uint8))
        own = None if bias is None else nn.Parameter(bias.detach().to(compute_dtype), requires_grad=False)
        self.register_parameter("bias", own)

    @property
    def packed(self) -> PackedWeight:
        scale = None if self.scale_bytes is None else self.scale_bytes.view(torch.float32)
        return PackedWeight(self.form, self.rows, self.shape, scale)

    @property
    def size_bytes(self) -> int:
        """The bytes that it holds in memory."""
        return self.packed.size_bytes + (0 if self.bias is None else int(self.bias.nbytes))

    def dense_weight(self) -> torch.Tensor:
        """Its weight as it computes with it."""
        return self.packed.dense(self.compute_dtype)

    def _factor(self) -> torch.Tensor:
        """What `x` is multiplied with: the weight without its scale, which the outputs get, where they have room.

        That takes a pass over the outputs instead of one over the weight. In fp16 they would overflow before.
        """
        weight = self.packed
        if weight.scale is None or self.compute_dtype == torch.float16:
            return weight.dense(self.compute_dtype)
        return weight.form.unpack(weight.rows, self.compute_dtype).view(self.shape)

    def _finished(self, y: torch.Tensor, *ones: int) -> torch.Tensor:
        """The outputs with their scale and the bias; `ones`: the sides of `y` behind its outputs, each 1."""
        weight = self.packed
        if weight.scale is not None and self.compute_dtype != torch.float16:
            y.mul_(weight.scale.view(-1, *ones))
        return y if self.bias is None else y.add_(self.bias.view(-1, *ones))

    @property
    def weight(self) -> torch.Tensor:
        """The same, for code of the libraries' that looks at a layer's weight."""
        return self.dense_weight()


class PackedLinear(_PackedLayer):
    """A linear layer."""

    def __init__(self, weight: PackedWeight, bias: torch.Tensor | None, compute_dtype: torch.dtype) -> None:
        super().__init__(weight, bias, compute_dtype)
        self.out_features, self.in_features = weight.shape

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._finished(products.linear(x, self._factor))


class PackedConvolution(_PackedLayer):
    """A convolution over two dimensions, with zeros around."""

    def __init__(
        self, weight: PackedWeight, bias: torch.Tensor | None, compute_dtype: torch.dtype, like: nn.Conv2d
    ) -> None:
        super().__init__(weight, bias, compute_dtype)
        self.in_channels, self.out_channels, self.groups = like.in_channels, like.out_channels, like.groups
        self.kernel_size, self.padding_mode = like.kernel_size, like.padding_mode
        self.stride, self.padding, self.dilation = like.stride, like.padding, like.dilation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        how: dict[str, Any] = {"stride": self.stride, "padding": self.padding, "dilation": self.dilation}
        return self._finished(products.convolution(x, self._factor, how | {"groups": self.groups}), 1, 1)


def form_of(network: nn.Module) -> str:
    """How most of its packed weights are packed, by their bytes; "" where none is."""
    sizes: Counter[str] = Counter()
    for module in network.modules():
        if isinstance(module, _PackedLayer):
            sizes[module.form.name] += module.size_bytes
    return max(sizes, key=sizes.__getitem__) if sizes else ""


def can_be_packed(module: nn.Module) -> bool:
    """Exactly these classes: what computes otherwise with its weight is left alone."""
    return type(module) is nn.Linear or (type(module) is nn.Conv2d and module.padding_mode == "zeros")


def packed_layer(module: nn.Module, weight: PackedWeight, bias: torch.Tensor | None, dtype: torch.dtype) -> nn.Module:
    """What takes the place of a layer that can be packed."""
    if isinstance(module, nn.Conv2d):
        return PackedConvolution(weight, bias, dtype, module)
    return PackedLinear(weight, bias, dtype)


def put(network: nn.Module, path: str, layer: nn.Module) -> None:
    """In the place of what is at that path."""
    parent, _, name = path.rpartition(".")
    setattr(network.get_submodule(parent), name, layer)
