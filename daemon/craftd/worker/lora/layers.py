"""A layer that adds, row by row, what each row's LoRAs change: y = W x + sum of w B (A x).

The changes lie in stacks, one slot after another, a stack for each rank bucket. For a batch the rows'
slots are gathered and laid side by side along the rank, so that one pair of batched products (for kernels
larger than one: a grouped convolution and a batched product) adds all of them, fused into the addition.
Rows that all have the same LoRAs, as those of one job, take them from the stacks where they lie.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from craftd.worker.lora.adapter import Delta
from craftd.worker.lora.layer import Layer


@dataclass(frozen=True)
class Column:
    """What one rank bucket contributes to a batch: rows, K slots each; slot 0 is empty."""

    bucket: int
    slots: torch.Tensor  # rows, K
    weights: torch.Tensor  # blocks (one, where they all have the same), rows, K
    places: Mapping[int | None, int] = field(default_factory=dict)  # of a layer's block among them, if not the first

    def weights_in(self, block: int | None) -> torch.Tensor:
        """rows, K: in the layers of that block."""
        return self.weights[self.places.get(block, 0)]


@dataclass(frozen=True)
class Shared:
    """A LoRA that all rows of a batch have."""

    bucket: int
    slot: int
    weight_in: Callable[[int | None], float]  # of a layer's block


@dataclass(frozen=True)
class Selection:
    """Which slots the rows of a batch use, and how strongly. Equal keys gather equal tensors."""

    key: Hashable
    columns: Sequence[Column]
    shared: Sequence[Shared]  # where all rows have the same
    is_kept: bool  # gathered tensors stay for the next step


class Stack:
    """One layer's changes of one rank bucket: slots, rank, inputs...; and slots, outputs, rank."""

    def __init__(self, layer: Layer, bucket: int, slots: int, device: torch.device) -> None:
        self.downs = torch.zeros(slots, bucket, *layer.inputs, dtype=layer.dtype, device=device)
        self.ups = torch.zeros(slots, layer.outputs, bucket, dtype=layer.dtype, device=device)

    @property
    def size_bytes(self) -> int:
        return int(self.downs.nbytes + self.ups.nbytes)

    @property
    def slot_bytes(self) -> int:
        return self.size_bytes // self.downs.shape[0]

    def grow(self, slots: int) -> None:
        self.downs = _grown(self.downs, slots)
        self.ups = _grown(self.ups, slots)

    def put(self, slot: int, delta: Delta) -> None:
        self.clear(slot)
        place = self.downs.device
        self.downs[slot, : delta.rank] = delta.down.to(place, non_blocking=True)
        self.ups[slot, :, : delta.rank] = delta.up.to(place, non_blocking=True) * delta.scale

    def clear(self, slot: int) -> None:
        self.downs[slot].zero_()
        self.ups[slot].zero_()


@dataclass(frozen=True)
class Gathered:
    """The matrices of one layer for one batch: of each row, or, where rows have the same LoRAs, of all."""

    downs: torch.Tensor  # (rows,) ranks, inputs...
    ups: torch.Tensor  # (rows,) outputs, ranks
    strength: float = 1.0  # of all; those of single LoRAs are in `ups`
    is_shared: bool = False
    is_view: bool = False  # of the stacks

    @property
    def size_bytes(self) -> int:
        """The bytes that it takes besides the stacks."""
        return 0 if self.is_view else int(self.downs.nbytes + self.ups.nbytes)


class AdaptedLayer:
    """A layer and its stacks. `attach` takes the place of its forward until `detach`."""

    def __init__(self, layer: Layer, block: int | None = None) -> None:
        self._layer = layer
        self.block = block  # of the model's
        self.stacks: dict[int, Stack] = {}
        self._selection: Selection | None = None
        self._kept: tuple[Hashable, Gathered] | None = None
        self._forward = self._conv if layer.is_convolution else self._linear

    @property
    def size_bytes(self) -> int:
        return sum(stack.size_bytes for stack in self.stacks.values())

    @property
    def gathered_bytes(self) -> int:
        """The bytes of what is kept gathered for the next step."""
        return 0 if self._kept is None else self._kept[1].size_bytes

    def attach(self, selection: Selection) -> None:
        self._selection = selection
        if selection.is_kept:
            self.gathered(selection)
        self._layer.module.__dict__["forward"] = self._forward

    def detach(self) -> None:
        self._selection = None
        self._layer.module.__dict__.pop("forward", None)

    def forget(self) -> None:
        """Drop what was gathered."""
        self._kept = None

    def gathered(self, selection: Selection) -> Gathered:
        """What the selection's rows take from the stacks."""
        if self._kept is not None and self._kept[0] == selection.key:
            return self._kept[1]
        found = self._shared(selection) if selection.shared else self._of_rows(selection)
        if selection.is_kept:
            self._kept = (selection.key, found)
        return found

    def _linear(self, x: torch.Tensor) -> torch.Tensor:
        assert self._selection is not None
        taken, y = self.gathered(self._selection), self._layer.compute(x)
        if taken.is_shared:
            inner = functional.linear(x.reshape(-1, x.shape[-1]), taken.downs)
            y.view(-1, y.shape[-1]).addmm_(inner, taken.ups.mT, alpha=taken.strength)
        else:
            rows = taken.downs.shape[0]
            inner = torch.bmm(x.reshape(rows, -1, x.shape[-1]), taken.downs.mT)
            y.view(rows, -1, y.shape[-1]).baddbmm_(inner, taken.ups.mT)
        return y

    def _conv(self, x: torch.Tensor) -> torch.Tensor:
        assert self._selection is not None
        taken, y = self.gathered(self._selection), self._layer.compute(x)
        ups = taken.ups.expand(y.shape[0], -1, -1) if taken.is_shared else taken.ups
        inner = _convolved(x, taken, self._layer.module)
        return torch.baddbmm(y.flatten(2), ups, inner, alpha=taken.strength).view_as(y)

    def _shared(self, selection: Selection) -> Gathered:
        uses = [
            (self.stacks[one.bucket], one.slot, one.weight_in(self.block))
            for one in selection.shared
            if one.bucket in self.stacks
        ]
        if len(uses) == 1:
            stack, slot, strength = uses[0]
            return Gathered(stack.downs[slot], stack.ups[slot], strength, is_shared=True, is_view=True)
        downs = torch.cat([stack.downs[slot] for stack, slot, _ in uses])
        ups = torch.cat([stack.ups[slot] * strength for stack, slot, strength in uses], dim=1)
        return Gathered(downs, ups, is_shared=True)

    def _of_rows(self, selection: Selection) -> Gathered:
        columns = [column for column in selection.columns if column.bucket in self.stacks]
        downs = [self.stacks[column.bucket].downs[column.slots].flatten(1, 2) for column in columns]
        ups = [_weighted_ups(self.stacks[column.bucket].ups, column, self.block) for column in columns]
        if len(columns) == 1:
            return Gathered(downs[0], ups[0])
        return Gathered(torch.cat(downs, dim=1), torch.cat(ups, dim=2))


def _convolved(x: torch.Tensor, taken: Gathered, layer: nn.Conv2d) -> torch.Tensor:
    """rows, ranks, places: the layer's own convolution, with the LoRAs' kernels."""
    how: dict[str, Any] = {"stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation}
    if taken.is_shared:
        return functional.conv2d(x, taken.downs, **how).flatten(2)
    rows, ranks = taken.downs.shape[:2]
    if layer.kernel_size == (1, 1) and layer.stride == (1, 1) and layer.padding == (0, 0):
        return torch.bmm(taken.downs.flatten(2), x.reshape(rows, x.shape[1], -1))
    side_by_side = x.reshape(1, -1, *x.shape[2:])
    return functional.conv2d(side_by_side, taken.downs.flatten(0, 1), groups=rows, **how).view(rows, ranks, -1)


def _weighted_ups(ups: torch.Tensor, column: Column, block: int | None) -> torch.Tensor:
    """rows, outputs, K * rank"""
    gathered = ups[column.slots] * column.weights_in(block)[:, :, None, None].to(ups.dtype)
    return gathered.transpose(1, 2).flatten(2)


def _grown(tensor: torch.Tensor, slots: int) -> torch.Tensor:
    if tensor.shape[0] >= slots:
        return tensor  # by an attempt that ran out of memory elsewhere
    grown = tensor.new_zeros(slots, *tensor.shape[1:])
    grown[: tensor.shape[0]] = tensor
    return grown
