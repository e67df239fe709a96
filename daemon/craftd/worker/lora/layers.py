"""A layer that adds, row by row, what each row's LoRAs change: y = W x + sum of w B (A x).

The changes lie in stacks, one slot after another, a stack for each rank bucket. For a batch the rows'
slots are gathered and laid side by side along the rank, so that one pair of batched products (for kernels
larger than one: a grouped convolution and a batched product) adds all of them, fused into the addition.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from craftd.worker.lora.adapter import Delta, Layer


@dataclass(frozen=True)
class Column:
    """What one rank bucket contributes to a batch: rows, K slots each; slot 0 is empty."""

    bucket: int
    slots: torch.Tensor  # rows, K
    weights: torch.Tensor  # rows, K


@dataclass(frozen=True)
class Selection:
    """Which slots the rows of a batch use, and how strongly. Equal keys gather equal tensors."""

    key: Hashable
    rows: int
    columns: Sequence[Column]
    is_kept: bool  # gathered tensors stay for the next step


class Stack:
    """One layer's changes of one rank bucket: slots, rank, inputs...; and slots, outputs, rank."""

    def __init__(self, layer: Layer, bucket: int, slots: int, device: torch.device) -> None:
        outputs, *inputs = layer.weight.shape
        self.downs = torch.zeros(slots, bucket, *inputs, dtype=layer.weight.dtype, device=device)
        self.ups = torch.zeros(slots, outputs, bucket, dtype=layer.weight.dtype, device=device)

    @property
    def size_bytes(self) -> int:
        return int(self.downs.nbytes + self.ups.nbytes)

    def grow(self, slots: int) -> None:
        self.downs = _grown(self.downs, slots)
        self.ups = _grown(self.ups, slots)

    def put(self, slot: int, delta: Delta) -> None:
        self.clear(slot)
        self.downs[slot, : delta.rank] = delta.down.to(self.downs.device)
        self.ups[slot, :, : delta.rank] = delta.up.to(self.ups.device) * delta.scale

    def clear(self, slot: int) -> None:
        self.downs[slot].zero_()
        self.ups[slot].zero_()


class AdaptedLayer:
    """A layer and its stacks. `attach` takes the place of its forward until `detach`."""

    def __init__(self, layer: Layer) -> None:
        self._layer = layer
        self.stacks: dict[int, Stack] = {}
        self._selection: Selection | None = None
        self._gathered: tuple[Hashable, torch.Tensor, torch.Tensor] | None = None
        self._forward = self._linear if isinstance(layer, nn.Linear) else self._conv

    @property
    def size_bytes(self) -> int:
        return sum(stack.size_bytes for stack in self.stacks.values())

    def attach(self, selection: Selection) -> None:
        self._selection = selection
        self._layer.__dict__["forward"] = self._forward

    def detach(self) -> None:
        self._selection = None
        self._layer.__dict__.pop("forward", None)

    def forget(self) -> None:
        """Drop what was gathered."""
        self._gathered = None

    def _linear(self, x: torch.Tensor) -> torch.Tensor:
        downs, ups = self._gather()
        layer: Any = self._layer
        y = functional.linear(x, layer.weight, layer.bias)
        rows = downs.shape[0]
        inner = torch.bmm(x.reshape(rows, -1, x.shape[-1]), downs.mT)
        y.view(rows, -1, y.shape[-1]).baddbmm_(inner, ups.mT)
        return y

    def _conv(self, x: torch.Tensor) -> torch.Tensor:
        downs, ups = self._gather()
        layer: Any = self._layer
        y: torch.Tensor = layer._conv_forward(x, layer.weight, layer.bias)
        rows, rank = downs.shape[:2]
        if layer.kernel_size == (1, 1) and layer.stride == (1, 1) and layer.padding == (0, 0):
            inner = torch.bmm(downs.flatten(2), x.reshape(rows, x.shape[1], -1))
        else:
            side_by_side = x.reshape(1, -1, *x.shape[2:])
            inner = functional.conv2d(
                side_by_side, downs.flatten(0, 1), None, layer.stride, layer.padding, layer.dilation, rows
            ).view(rows, rank, -1)
        flat = y.flatten(2)
        return torch.baddbmm(flat, ups, inner).view_as(y)

    def _gather(self) -> tuple[torch.Tensor, torch.Tensor]:
        """rows, ranks, inputs...; and rows, outputs, ranks, with the weights in them."""
        selection = self._selection
        assert selection is not None
        if self._gathered is not None and self._gathered[0] == selection.key:
            return self._gathered[1:]
        columns = [column for column in selection.columns if column.bucket in self.stacks]
        downs = torch.cat([_side_by_side(self.stacks[one.bucket].downs[one.slots]) for one in columns], dim=1)
        ups = torch.cat([_weighted_ups(self.stacks[one.bucket].ups, one) for one in columns], dim=2)
        if selection.is_kept:
            self._gathered = (selection.key, downs, ups)
        return downs, ups


def is_adaptable(layer: Layer) -> bool:
    """Whether a slot can hold its change."""
    return isinstance(layer, nn.Linear) or (layer.groups == 1 and layer.padding_mode == "zeros")


def _side_by_side(downs: torch.Tensor) -> torch.Tensor:
    """rows, K, rank, ... -> rows, K * rank, ..."""
    return downs.flatten(1, 2)


def _weighted_ups(ups: torch.Tensor, column: Column) -> torch.Tensor:
    """rows, outputs, K * rank"""
    gathered = ups[column.slots] * column.weights[:, :, None, None].to(ups.dtype)
    return gathered.transpose(1, 2).flatten(2)


def _grown(tensor: torch.Tensor, slots: int) -> torch.Tensor:
    grown = tensor.new_zeros(slots, *tensor.shape[1:])
    grown[: tensor.shape[0]] = tensor
    return grown
