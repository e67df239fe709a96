"""Captions that are another each time: their tags, commas between, shuffled and left out."""

from __future__ import annotations

import torch
from craft_protos.train import TrainSpec


def varied(caption: str, recipe: TrainSpec, generator: torch.Generator) -> str:
    """The first `keep_tags` stay where they are. Draws nothing where nothing varies."""
    if not recipe.varies_captions:
        return caption
    tags = [tag for part in caption.split(",") if (tag := part.strip())]
    kept, rest = tags[: recipe.keep_tags], tags[recipe.keep_tags :]
    if recipe.shuffle_tags:
        rest = [rest[i] for i in torch.randperm(len(rest), generator=generator).tolist()]
    if recipe.tag_dropout:
        chances = torch.rand(len(rest), generator=generator).tolist()
        rest = [tag for tag, chance in zip(rest, chances, strict=True) if chance >= recipe.tag_dropout]
    return ", ".join([*kept, *rest])
