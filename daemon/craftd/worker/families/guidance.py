"""Classifier-free guidance over rows that have it and rows that don't, in one model call."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from craftd.worker.families.base import ModelRow


@dataclass(frozen=True)
class Stacked:
    """Model rows: the negatives of the guided request rows first, then one of every request row."""

    rows: Sequence[ModelRow]
    guided: Sequence[ModelRow]
    texts: torch.Tensor
    pooled: torch.Tensor | None

    @property
    def order(self) -> list[ModelRow]:
        return order(self.rows)

    @property
    def samples(self) -> torch.Tensor:
        return torch.cat([row.sample for row in self.order])

    @property
    def timesteps(self) -> torch.Tensor:
        return torch.stack([row.timestep.to(torch.float32) for row in self.order])

    def guide(self, output: torch.Tensor) -> list[torch.Tensor]:
        """One output of every request row."""
        without = iter(torch.split(output[: len(self.guided)], 1))
        given = torch.split(output[len(self.guided) :], 1)
        return [_guide(row, without, text) for row, text in zip(self.rows, given, strict=True)]


def order(rows: Sequence[ModelRow]) -> list[ModelRow]:
    """The model rows of request rows."""
    return [*(row for row in rows if row.conditioning.negative is not None), *rows]


def stack(rows: Sequence[ModelRow]) -> Stacked:
    """Rows of one group, as one batch."""
    guided = [row for row in rows if row.conditioning.negative is not None]
    texts = [row.conditioning.negative for row in guided] + [row.conditioning.positive for row in rows]
    pooled = [row.conditioning.negative_pooled for row in guided] + [row.conditioning.pooled for row in rows]
    return Stacked(rows, guided, _joined(texts), _joined(pooled) if pooled[0] is not None else None)


def _joined(tensors: Sequence[torch.Tensor | None]) -> torch.Tensor:
    return torch.cat([tensor for tensor in tensors if tensor is not None])


def _guide(row: ModelRow, without_text: Iterator[torch.Tensor], text: torch.Tensor) -> torch.Tensor:
    if row.conditioning.negative is None:
        return text
    without = next(without_text)
    return without + row.conditioning.guidance_scale * (text - without)
