"""craft's own provenance as a recipe, for those who want a picture's settings and not the very picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from craft_protos.provenance import request
from craft_protos.reasons import CraftError
from craft_protos.recipes.containers import COMMENT
from craft_protos.recipes.recipe import MOST_LORAS, LoraUse, Named, Recipe
from craft_protos.recipes.told import json_of, number_of

_CHUNK = "craft"
_OTHER_PICTURES = ("mask", "references", "controls", "upscale")


def read(texts: Mapping[str, str]) -> Recipe | None:
    """None where it is none of craft's, or not whole, or where nothing was drawn."""
    record = json_of(texts.get(_CHUNK, "") or texts.get(COMMENT, ""))
    if record is None or not record.get("steps"):
        return None
    try:
        spec = request(record, ())
        model, loras = record["model"], tuple(_use(one) for one in record.get("loras", ())[:MOST_LORAS])
        file = Named(spec.model, _text(model.get("sha256", "")))
    except (CraftError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return Recipe(
        program="craft",
        prompt=spec.prompt,
        negative_prompt=spec.negative_prompt,
        prompt_syntax=spec.prompt_syntax,
        width=spec.width,
        height=spec.height,
        steps=spec.steps,
        guidance_scale=spec.guidance_scale,
        guidance_rescale=spec.guidance_rescale or None,
        seed=spec.seed,
        sampler=spec.sampler,
        clip_skip=spec.clip_skip if spec.clip_skip != 1 else None,
        strength=spec.start.strength if spec.start is not None else None,
        hires=spec.hires,
        model=file,
        loras=loras,
        not_understood=tuple(f"{name}: give it anew" for name in _OTHER_PICTURES if getattr(spec, name)),
    )


def _use(one: Any) -> LoraUse:
    strength = number_of(one["weight"])
    return LoraUse(_text(one["name"]), _text(one["sha256"]), weight=1.0 if strength is None else strength)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("a name or a hash is text")
    return value
