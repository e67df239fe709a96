"""A LoRA fitted to one model: for each layer, what is added to its weight."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

RANK_BUCKETS = (16, 32, 64, 128)


@dataclass(frozen=True)
class Delta:
    """One layer's low-rank change: weight + w * scale * up @ down (Hu et al. 2021)."""

    down: torch.Tensor  # rank, then as the layer's weight without its first dimension
    up: torch.Tensor  # outputs, rank
    scale: float  # alpha / rank
    magnitude: torch.Tensor | None = None  # DoRA (Liu et al. 2024): outputs, 1; or 1, inputs
    is_lycoris: bool = False  # a DoRA's strength counts as LyCORIS has it, not as peft does

    @property
    def rank(self) -> int:
        return int(self.down.shape[0])

    @property
    def size_bytes(self) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in (self.down, self.up))


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


@dataclass(frozen=True)
class Adapter:
    """The facts, and the changes by component and layer."""

    facts: Facts
    deltas: Mapping[str, Mapping[str, Delta]]
