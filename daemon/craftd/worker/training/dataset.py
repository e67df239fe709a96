"""Pictures and captions as a trainer takes them: encoded once, in batches of one size."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch

from craftd.worker.training.encoded import Encoded
from craftd.worker.training.trainable import Text


@dataclass(frozen=True)
class Item:
    """One picture: what its latents are kept as, the size it is trained at, and what it is called."""

    key: Hashable
    size: tuple[int, int]  # width, height
    caption: str

    def latents_key(self, *, is_flipped: bool = False) -> Hashable:
        return ("latents", self.key, is_flipped)


@dataclass(frozen=True)
class Batch:
    """Rows of one size."""

    latents: torch.Tensor
    captions: Sequence[str]


def text_key(caption: str) -> Hashable:
    return ("text", caption)


class Dataset:
    """Makes batches of the latents and captions that `encoded` holds."""

    def __init__(self, items: Sequence[Item], encoded: Encoded, device: torch.device) -> None:
        self._items = items
        self._encoded = encoded
        self._device = device

    @property
    def groups(self) -> list[list[int]]:
        """Places of the items of each size, in the order in which sizes come up."""
        by_size: dict[tuple[int, int], list[int]] = defaultdict(list)
        for place, item in enumerate(self._items):
            by_size[item.size].append(place)
        return list(by_size.values())

    def batch(self, places: Sequence[int], *, flip: bool) -> Batch:
        items = [self._items[place] for place in places]
        latents = [self._encoded.get(item.latents_key(is_flipped=flip))["latents"] for item in items]
        return Batch(torch.cat(latents).to(self._device), [item.caption for item in items])

    def text(self, captions: Sequence[str]) -> Text:
        return Text.joined([self._encoded.get(text_key(caption)) for caption in captions]).to(self._device)


class Order:
    """Which pictures make up the next batch: every picture once an epoch, no batch of two sizes.

    `groups` are the pictures of one size each. Shuffled by the training's generator, epoch by epoch.
    """

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
