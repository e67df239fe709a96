"""Pictures and captions as a trainer takes them: encoded once, in batches of one size."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import torch
from craft_protos.train import TrainSpec

from craftd.worker.training import pictures
from craftd.worker.training.encoded import Encoded, Tensors
from craftd.worker.training.pictures import Look
from craftd.worker.training.trainable import Text


@dataclass(frozen=True)
class Item:
    """One picture: what its latents are kept as, the size it is trained at, and what it is called."""

    key: Hashable
    size: tuple[int, int]  # width, height
    caption: str
    repeats: int = 1  # in an epoch

    @property
    def place(self) -> int:
        """Of a picture that was sent, among those."""
        assert isinstance(self.key, int)
        return self.key

    def latents_key(self, *, is_flipped: bool = False) -> Hashable:
        return ("latents", self.key, is_flipped)


@dataclass(frozen=True)
class Batch:
    """Rows of one size."""

    latents: torch.Tensor
    captions: Sequence[str]
    mask: torch.Tensor | None = None  # rows, 1, height, width: how much each latent counts


@dataclass(frozen=True)
class Varying:
    """Pictures that are another each time: encoded when their turn comes."""

    recipe: TrainSpec
    encode: Callable[[Item, bool, Look], Tensors]

    def shown(self, item: Item, is_flipped: bool, generator: torch.Generator) -> Tensors:
        return self.encode(item, is_flipped, pictures.drawn(self.recipe, generator))


def text_key(caption: str) -> Hashable:
    return ("text", caption)


class Dataset:
    """Makes batches of the latents and captions that `encoded` holds, or of pictures that vary."""

    def __init__(
        self, items: Sequence[Item], encoded: Encoded, device: torch.device, varying: Varying | None = None
    ) -> None:
        self._items = items
        self._encoded = encoded
        self._device = device
        self._varying = varying

    def __len__(self) -> int:
        return len(self._items)

    @property
    def groups(self) -> list[list[int]]:
        """Places of the items of each size, as often as they come, in the order in which sizes come up."""
        by_size: dict[tuple[int, int], list[int]] = defaultdict(list)
        for place, item in enumerate(self._items):
            by_size[item.size] += [place] * item.repeats
        return list(by_size.values())

    def batch(self, places: Sequence[int], *, flip: bool, generator: torch.Generator) -> Batch:
        items = [self._items[place] for place in places]
        shown = [self._shown(item, flip, generator) for item in items]
        latents = torch.cat([one["latents"] for one in shown]).to(self._device)
        return Batch(latents, [item.caption for item in items], _masks(shown, latents))

    def _shown(self, item: Item, is_flipped: bool, generator: torch.Generator) -> Tensors:
        if self._varying is not None:
            return self._varying.shown(item, is_flipped, generator)
        return self._encoded.get(item.latents_key(is_flipped=is_flipped))

    def text(self, captions: Sequence[str]) -> Text:
        return Text.joined([self._encoded.get(text_key(caption)) for caption in captions]).to(self._device)


def _masks(shown: Sequence[Tensors], latents: torch.Tensor) -> torch.Tensor | None:
    """A picture without one counts everywhere."""
    if not any("mask" in one for one in shown):
        return None
    whole = torch.ones(1, 1, *latents.shape[-2:])
    return torch.cat([one.get("mask", whole) for one in shown]).to(latents.device)


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
