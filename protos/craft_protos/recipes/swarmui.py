"""SwarmUI's metadata: a JSON object in `parameters`, in JPEG in the comment, with `sui_image_params`."""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

from craft_protos.recipes.recipe import MOST_LORAS, LoraUse, Recipe
from craft_protos.recipes.told import Told, named, number_of

_OF_THE_PROGRAM = ("aspectratio", "swarm_version", "date", "generation_time", "nopreviews", "wildcardseed", "images")


def is_of(fields: dict[str, Any]) -> bool:
    return isinstance(fields.get("sui_image_params"), dict)


def read(fields: dict[str, Any]) -> Recipe:
    told = Told(fields["sui_image_params"])
    hashes = {named(one.get("name")).name: one.get("hash") for one in _objects(fields.get("sui_models"))}
    distilled, scale = told.number("fluxguidancescale"), told.number("cfgscale")
    uses = zip_longest(told.entries("loras")[:MOST_LORAS], told.entries("loraweights")[:MOST_LORAS])
    file = named(told.text("model"))
    told.take(*_OF_THE_PROGRAM)
    return Recipe(
        program="SwarmUI",
        prompt=told.text("prompt"),
        negative_prompt=told.text("negativeprompt"),
        width=told.whole("width"),
        height=told.whole("height"),
        steps=told.whole("steps"),
        guidance_scale=scale if distilled is None else distilled,
        seed=told.whole("seed"),
        sampler=told.text("sampler", "comfyuisampler"),
        schedule=told.text("scheduler", "comfyuischeduler"),
        strength=told.number("initimagecreativity"),
        model=named(file.name, hashes.get(file.name)),
        loras=tuple(_use(name, weight, hashes) for name, weight in uses if isinstance(name, str)),
        not_understood=told.left(),
    )


def _objects(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _use(path: str, weight: Any, hashes: dict[str, Any]) -> LoraUse:
    strength, name = number_of(weight), named(path).name
    file = named(name, hashes.get(name))
    return LoraUse(file.name, file.hash, weight=1.0 if strength is None else strength)
