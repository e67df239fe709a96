"""Captions that are another each time: words chosen among several, tags, commas between, shuffled and left out."""

from __future__ import annotations

import re

import torch
from craft_protos.train import TrainSpec

_CHOICE = re.compile(r"\{\{|\}\}|\{([^{}]+)\}")


def varied(caption: str, recipe: TrainSpec, generator: torch.Generator) -> str:
    """The first `keep_tags` stay where they are. Draws nothing where nothing varies."""
    if recipe.caption_wildcards:
        caption = _chosen(caption, generator)
    if not recipe.shuffle_tags and not recipe.tag_dropout:
        return caption
    tags = [tag for part in caption.split(",") if (tag := part.strip())]
    kept, rest = tags[: recipe.keep_tags], tags[recipe.keep_tags :]
    if recipe.shuffle_tags:
        rest = [rest[i] for i in torch.randperm(len(rest), generator=generator).tolist()]
    if recipe.tag_dropout:
        chances = torch.rand(len(rest), generator=generator).tolist()
        rest = [tag for tag, chance in zip(rest, chances, strict=True) if chance >= recipe.tag_dropout]
    return ", ".join([*kept, *rest])


def _chosen(caption: str, generator: torch.Generator) -> str:
    """One of {a|b} each, as in kohya's scripts: all are as likely, and doubled braces are braces."""

    def choice(found: re.Match[str]) -> str:
        if found[1] is None:
            return found[0][0]
        among = found[1].split("|")
        return among[int(torch.randint(len(among), (), generator=generator))]

    return _CHOICE.sub(choice, caption)
