"""Which pictures make up the next batch: every picture once an epoch, no batch of two sizes."""

from __future__ import annotations

from collections.abc import Sequence

import torch


class Order:
    """`groups` are the pictures of one size each. Shuffled by the training's generator, epoch by epoch."""

    def __init__(self, groups: Sequence[Sequence[int]], batch_size: int, generator: torch.Generator) -> None:
        self._groups = groups
        self._batch_size = batch_size
        self._generator = generator
        self.left: list[list[int]] = []  # batches of this epoch

    def next(self) -> list[int]:
        if not self.left:
            self.left = self._epoch()
        return self.left.pop(0)

    def _epoch(self) -> list[list[int]]:
        batches: list[list[int]] = []
        for group in self._groups:
            shuffled = [group[i] for i in self._permuted(len(group))]
            starts = range(0, len(shuffled), self._batch_size)
            batches += [shuffled[start : start + self._batch_size] for start in starts]
        return [batches[i] for i in self._permuted(len(batches))]

    def _permuted(self, count: int) -> list[int]:
        order: list[int] = torch.randperm(count, generator=self._generator).tolist()
        return order
