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
    """Over what `encoded` holds by the time that it is asked for."""

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
        kept = [self._encoded.get(text_key(caption)) for caption in captions]
        pooled = torch.cat([one["pooled"] for one in kept]).to(self._device) if "pooled" in kept[0] else None
        return Text(torch.cat([one["features"] for one in kept]).to(self._device), pooled)
