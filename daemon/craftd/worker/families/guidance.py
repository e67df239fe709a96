"""Classifier-free guidance over rows that have it and rows that don't, in one model call."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.nn.utils.rnn import pad_sequence

from craftd.worker.families.base import ModelRow

Combine = Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor]  # output without text, with it, guidance scale


@dataclass(frozen=True)
class Stacked:
    """Model rows: the negatives of the guided request rows first, then one of every request row."""

    rows: Sequence[ModelRow]
    guided: Sequence[ModelRow]
    texts: torch.Tensor  # filled up with noughts to the longest
    lengths: Sequence[int]  # of the texts, in tokens
    pooled: torch.Tensor | None

    @property
    def order(self) -> list[ModelRow]:
        return order(self.rows)

    @property
    def samples(self) -> torch.Tensor:
        return torch.cat([row.sample for row in self.order])

    @property
    def inputs(self) -> torch.Tensor:
        """The samples, with what a model for inpainting is given beside them."""
        beside = [row.beside for row in self.order if row.beside is not None]
        return torch.cat([self.samples, torch.cat(beside)], dim=1) if beside else self.samples

    @property
    def timesteps(self) -> torch.Tensor:
        return torch.stack([row.timestep.to(torch.float32) for row in self.order])

    @property
    def mask(self) -> torch.Tensor | None:
        """model rows, tokens: which are a text's own; None where all are."""
        longest = self.texts.shape[1]
        if all(length == longest for length in self.lengths):
            return None
        places = torch.arange(longest, device=self.texts.device)
        return places < torch.tensor(self.lengths, device=self.texts.device)[:, None]

    def guide(self, output: torch.Tensor, combine: Combine | None = None) -> list[torch.Tensor]:
        """One output of every request row; `combine`: how, where it is not Ho and Salimans' way (2022)."""
        without = iter(torch.split(output[: len(self.guided)], 1))
        given = torch.split(output[len(self.guided) :], 1)
        return [_guide(row, without, text, combine or extrapolated) for row, text in zip(self.rows, given, strict=True)]


def order(rows: Sequence[ModelRow]) -> list[ModelRow]:
    """The model rows of request rows."""
    return [*(row for row in rows if row.conditioning.negative is not None), *rows]


def stack(rows: Sequence[ModelRow]) -> Stacked:
    """Rows of one group, as one batch."""
    guided = [row for row in rows if row.conditioning.negative is not None]
    texts = [row.conditioning.negative for row in guided] + [row.conditioning.positive for row in rows]
    pooled = [row.conditioning.negative_pooled for row in guided] + [row.conditioning.pooled for row in rows]
    given = [text for text in texts if text is not None]
    lengths = [int(text.shape[1]) for text in given]
    return Stacked(rows, guided, _filled(given, lengths), lengths, _joined(pooled) if pooled[0] is not None else None)


def _filled(texts: Sequence[torch.Tensor], lengths: Sequence[int]) -> torch.Tensor:
    if len(set(lengths)) == 1:
        return torch.cat(list(texts))
    return pad_sequence([text[0] for text in texts], batch_first=True)


def _joined(tensors: Sequence[torch.Tensor | None]) -> torch.Tensor:
    return torch.cat([tensor for tensor in tensors if tensor is not None])


def extrapolated(without: torch.Tensor, text: torch.Tensor, scale: float) -> torch.Tensor:
    return without + scale * (text - without)


def added(without: torch.Tensor, text: torch.Tensor, scale: float) -> torch.Tensor:
    """Counted from the output that has the text: none is nought, where elsewhere it is one."""
    return text + scale * (text - without)


def _guide(row: ModelRow, without_text: Iterator[torch.Tensor], text: torch.Tensor, combine: Combine) -> torch.Tensor:
    if row.conditioning.negative is None:
        return text
    without = next(without_text)
    if row.unguided is not None:
        row.unguided.append(without)
    guided = combine(without, text, row.conditioning.cfg_scale)
    return _rescaled(guided, text, row.conditioning.text.guidance_rescale)


def _rescaled(guided: torch.Tensor, text: torch.Tensor, share: float) -> torch.Tensor:
    """By `share` nearer to the spread of values that the text alone gives (Lin et al. 2023, equations 15 and 16)."""
    if share == 0:
        return guided
    deviations = [some.std(dim=tuple(range(1, some.ndim)), keepdim=True) for some in (text, guided)]
    return share * (guided * (deviations[0] / deviations[1])) + (1 - share) * guided
