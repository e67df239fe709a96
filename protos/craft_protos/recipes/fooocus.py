"""Fooocus' own scheme: a JSON object in `parameters`, in JPEG and WebP in the comment."""

from __future__ import annotations

import re
from typing import Any

from craft_protos.recipes.recipe import MOST_LORAS, LoraUse, Recipe
from craft_protos.recipes.told import Told, named, number_of

_OF_THE_PROGRAM = ("version", "metadata_scheme", "created_by", "styles", "performance", "prompt", "negative_prompt")


def is_of(fields: dict[str, Any]) -> bool:
    return "base_model" in fields and "guidance_scale" in fields and "mflux_version" not in fields


def read(fields: dict[str, Any]) -> Recipe:
    """What it drew from was the full prompt, in which its styles have had their say."""
    told = Told(fields)
    prompt, negative = (_joined(told, f"full_{name}") or told.text(name) for name in ("prompt", "negative_prompt"))
    return Recipe(
        program="Fooocus",
        prompt=prompt,
        negative_prompt=negative,
        **_size(told),
        steps=told.whole("steps"),
        guidance_scale=told.number("guidance_scale"),
        seed=told.whole("seed"),
        sampler=told.text("sampler"),
        schedule=told.text("scheduler"),
        model=named(told.text("base_model"), told.text("base_model_hash")),
        loras=_loras(told, fields),
        not_understood=_left(told),
    )


def _joined(told: Told, name: str) -> str:
    listed = told.entries(name)
    return ", ".join(one for one in listed if isinstance(one, str) and one) or told.text(name)


def _size(told: Told) -> dict[str, Any]:
    found = re.fullmatch(r"\(\s*'?(\d{1,6})'?\s*,\s*'?(\d{1,6})'?\s*\)", told.text("resolution"))
    return {"width": int(found[1]), "height": int(found[2])} if found else {}


def _loras(told: Told, fields: dict[str, Any]) -> tuple[LoraUse, ...]:
    """By `loras`, [name, weight, hash] each; else by "lora_combined_1": "name : weight" and so on."""
    combined = [told.text(name) for name in list(fields) if str(name).startswith("lora_combined_")]
    listed = [one for one in told.entries("loras") if isinstance(one, list) and len(one) >= 2]
    if not listed:
        pairs = (one.rpartition(" : ") for one in combined)
        listed = [[name, weight] for name, _, weight in pairs if name]
    return tuple(_use(*one[:3]) for one in listed[:MOST_LORAS])


def _use(name: Any, weight: Any, digits: Any = "") -> LoraUse:
    strength, file = number_of(weight), named(name, digits)
    return LoraUse(file.name, file.hash, weight=1.0 if strength is None else strength)


def _left(told: Told) -> tuple[str, ...]:
    told.take(*_OF_THE_PROGRAM)
    return told.left()
