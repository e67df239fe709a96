"""A LoRA fitted to one model: for each layer, what is added to its weight."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch

from craftd.worker.lora.ofweight import OfWeight

RANK_BUCKETS = (16, 32, 64, 128)


@dataclass(frozen=True)
class Delta:
    """One layer's low-rank change: weight + w * scale * up @ down (Hu et al. 2021).

    A LoHa's is multiplied by a second product, element by element, and a LoKr's by a first factor, as Kronecker has
    it (Hyeon-Woo et al. 2022; Yeh et al. 2024): those are kept as they are, and made whole a layer at a time.
    """

    down: torch.Tensor  # rank, then as the layer's weight without its first dimension
    up: torch.Tensor  # outputs, rank
    scale: float  # alpha / rank
    magnitude: torch.Tensor | None = None  # DoRA (Liu et al. 2024): outputs, 1; or 1, inputs
    is_lycoris: bool = False  # a DoRA's strength counts as LyCORIS has it, not as peft does
    second: tuple[torch.Tensor, torch.Tensor] | None = None  # LoHa: its down, up
    kron: torch.Tensor | None = None  # LoKr: its first factor
    outputs: slice | None = None  # of a LoKr for several layers, this layer's
    is_swapped: bool = False  # of a LoKr: the halves of its outputs are the other way round
    of_weight: OfWeight | None = None  # a change of another kind, instead of the product, which has rank 0 then
    bias: torch.Tensor | None = None  # what is added to the layer's bias
    block: int | None = None  # of the model's, as block weights count them; None: it is in none of them

    @property
    def is_low_rank(self) -> bool:
        others = (self.second, self.kron, self.magnitude, self.of_weight, self.bias)
        return all(other is None for other in others)

    @property
    def rank(self) -> int:
        return int(self.down.shape[0])

    @property
    def size_bytes(self) -> int:
        others = (*(self.second or ()), self.kron, self.bias)
        of_weight = 0 if self.of_weight is None else self.of_weight.size_bytes
        held = (tensor.nbytes for tensor in (*self.matrices, *others) if tensor is not None)
        return int(sum(held)) + of_weight

    @property
    def matrices(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Those that a slot takes."""
        return self.down, self.up

    def product(self, device: torch.device) -> torch.Tensor:
        """The whole change without its scale, in fp32: outputs, inputs (and kernel)."""
        found = _multiplied(self.down, self.up, device)
        if self.second is not None:
            found = found * _multiplied(*self.second, device)
        if self.kron is None:
            return found
        first = self.kron.to(device).float()
        return part_of(torch.kron(first.view(*first.shape, *[1] * (found.ndim - 2)), found), self)


class _Part(Protocol):
    @property
    def outputs(self) -> slice | None: ...
    @property
    def is_swapped(self) -> bool: ...


def part_of(up: torch.Tensor, place: _Part) -> torch.Tensor:
    """A place's outputs, of a tensor that has those of several."""
    part = up if place.outputs is None else up[place.outputs]
    return torch.cat(part.chunk(2)[::-1]) if place.is_swapped else part


def _multiplied(down: torch.Tensor, up: torch.Tensor, device: torch.device) -> torch.Tensor:
    product = up.to(device).float() @ down.to(device).float().flatten(1)
    return product.view(len(up), *down.shape[1:])


@dataclass(frozen=True)
class Word:
    """An embedding as a row uses it: what stands for its name in a prompt."""

    name: str
    weight: float
    vectors: Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Facts:
    """What is known of a LoRA once it has been fitted to a model."""

    name: str
    sha256: str
    matched: int  # tensors of the file that are used, alphas among them
    total: int
    unmatched: Mapping[str, str]  # tensor -> why
    bucket: int | None  # of its largest rank; None: only merging can apply it
    adapts_text: bool
    vectors: Mapping[str, torch.Tensor] = field(default_factory=dict)  # of an embedding: text encoder -> count, width
    bundled: Mapping[str, Mapping[str, torch.Tensor]] = field(default_factory=dict)  # the same of words beside a LoRA


@dataclass(frozen=True)
class Adapter:
    """The facts, and the changes by component and layer."""

    facts: Facts
    deltas: Mapping[str, Mapping[str, Delta]]

    def pinned(self) -> Adapter:
        """The same in one piece of memory that a CUDA device copies from by itself: its slots are filled unwaited."""
        size = sum(_room(one) for some in self.deltas.values() for delta in some.values() for one in delta.matrices)
        left = torch.empty(size, dtype=torch.uint8).pin_memory()

        def moved(one: torch.Tensor) -> torch.Tensor:
            nonlocal left
            place, left = left[: one.nbytes], left[_room(one) :]
            return place.view(one.dtype).view(one.shape).copy_(one)

        def of(delta: Delta) -> Delta:
            return replace(delta, down=moved(delta.down), up=moved(delta.up))

        return replace(
            self, deltas={name: {path: of(one) for path, one in some.items()} for name, some in self.deltas.items()}
        )


def _room(tensor: torch.Tensor) -> int:
    """Its bytes, filled up so that the next one begins where any type may."""
    return tensor.nbytes + -tensor.nbytes % 16
