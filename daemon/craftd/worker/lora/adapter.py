"""A LoRA fitted to one model: for each layer, what is added to its weight."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from craft_protos.reasons import CraftError
from torch import nn

RANK_BUCKETS = (16, 32, 64, 128)

Layer = nn.Linear | nn.Conv2d


@dataclass(frozen=True)
class Delta:
    """One layer's low-rank change: weight + w * scale * up @ down (Hu et al. 2021)."""

    down: torch.Tensor  # rank, then as the layer's weight without its first dimension
    up: torch.Tensor  # outputs, rank
    scale: float  # alpha / rank
    magnitude: torch.Tensor | None = None  # DoRA (Liu et al. 2024): outputs, 1; or 1, inputs

    @property
    def rank(self) -> int:
        return int(self.down.shape[0])

    @property
    def size_bytes(self) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in (self.down, self.up))


@dataclass(frozen=True)
class Facts:
    """What is known of a LoRA once it has been fitted to a model."""

    name: str
    sha256: str
    matched: int  # tensors of the file that are used, alphas among them
    total: int
    unmatched: tuple[str, ...]
    bucket: int | None  # of its largest rank; None: only merging can apply it
    adapts_text: bool


@dataclass(frozen=True)
class Adapter:
    """The facts, and the changes by component and layer."""

    facts: Facts
    deltas: Mapping[str, Mapping[str, Delta]]


def mismatch(lora: str, model: str, facts: Facts) -> CraftError:
    """LORA_MISMATCH that counts and names what does not fit."""
    shown = ", ".join(facts.unmatched[:3]) + (", ..." if len(facts.unmatched) > 3 else "")
    hint = (
        "it was made for another kind of model"
        if not facts.matched
        else "use a LoRA made for this model, or --lora-missing=skip to apply the rest"
    )
    counted = f"{facts.matched} of {facts.total} tensors fit"
    return CraftError("LORA_MISMATCH", f"LoRA {lora} does not fit model {model}: {counted} (not {shown})", hint)
