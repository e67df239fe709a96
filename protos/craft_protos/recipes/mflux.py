"""mflux' metadata: a JSON object in EXIF's comment."""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

from craft_protos.recipes.recipe import MOST_LORAS, LoraUse, Recipe
from craft_protos.recipes.told import Told, named, number_of

_OF_THE_PROGRAM = ("mflux_version", "base_model", "generation_time_seconds", "created_at", "precision", "quantize")


def is_of(fields: dict[str, Any]) -> bool:
    return "mflux_version" in fields


def read(fields: dict[str, Any]) -> Recipe:
    told = Told(fields)
    kept = told.number("image_strength")  # mflux counts how much of the start picture stays
    return Recipe(
        program="mflux",
        prompt=told.text("prompt"),
        negative_prompt=told.text("negative_prompt"),
        width=told.whole("width"),
        height=told.whole("height"),
        steps=told.whole("steps"),
        guidance_scale=told.number("guidance"),
        seed=told.whole("seed"),
        strength=None if kept is None else round(1 - kept, 4),
        model=named(told.text("model")),
        loras=_loras(told),
        not_understood=_left(told),
    )


def _loras(told: Told) -> tuple[LoraUse, ...]:
    pairs = zip_longest(told.entries("lora_paths")[:MOST_LORAS], told.entries("lora_scales")[:MOST_LORAS])
    return tuple(_use(path, scale) for path, scale in pairs if path is not None)


def _use(path: Any, scale: Any) -> LoraUse:
    strength = number_of(scale)
    return LoraUse(named(path).name, weight=1.0 if strength is None else strength)


def _left(told: Told) -> tuple[str, ...]:
    told.take(*_OF_THE_PROGRAM)
    return told.left()
