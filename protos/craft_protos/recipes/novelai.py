"""NovelAI's metadata: chunks of its name, and `Comment`, a JSON object of everything that was asked for."""

from __future__ import annotations

import re
from collections.abc import Mapping

from craft_protos.recipes.recipe import Named, Recipe
from craft_protos.recipes.told import Told, json_of

_OF_THE_PROGRAM = (
    *("n_samples", "request_type", "signed_hash", "version", "params_version", "stream", "v4_negative_prompt"),
    *("add_original_image", "prefer_brownian", "deliberate_euler_ancestral_bug", "legacy_v3_extend", "legacy"),
    *("qualityToggle", "ucPreset", "uncond_scale", "use_order", "lora_unet_weights", "lora_clip_weights"),
)
_SCHEDULES = {"karras": "Karras", "exponential": "Exponential", "polyexponential": "Polyexponential"}
_OWN_SCHEDULE = "native"


def read(texts: Mapping[str, str]) -> Recipe | None:
    """None where the picture is none of NovelAI's."""
    if texts.get("Software") != "NovelAI":
        return None
    told = Told(json_of(texts.get("Comment", "")) or {})
    prompt = told.text("prompt") or texts.get("Description", "")
    schedule = told.text("noise_schedule")
    recipe = Recipe(
        program="NovelAI",
        prompt=prompt,
        negative_prompt=told.text("uc"),
        width=told.whole("width"),
        height=told.whole("height"),
        steps=told.whole("steps"),
        guidance_scale=told.number("scale"),
        guidance_rescale=told.number("cfg_rescale") or None,
        seed=told.whole("seed"),
        sampler=told.text("sampler"),
        schedule="" if schedule == _OWN_SCHEDULE else _SCHEDULES.get(schedule, schedule),
        strength=told.number("strength"),
        model=Named(texts.get("Source", "")[:100]),
        not_understood=(*_characters(told), *_emphasis(prompt), *_left(told)),
    )
    return recipe


def _characters(told: Told) -> tuple[str, ...]:
    """What version 4 says of each character in a caption of its own."""
    caption = told.fields("v4_prompt").get("caption")
    listed = caption.get("char_captions") if isinstance(caption, dict) else None
    count = len(listed) if isinstance(listed, list) else 0
    return (f"v4_prompt: {count} captions of characters",) if count else ()


def _emphasis(prompt: str) -> tuple[str, ...]:
    found = re.search(r"[{}]|-?\d::", prompt)
    return ("emphasis: NovelAI's braces and numbers in the prompt are read as words",) if found else ()


def _left(told: Told) -> tuple[str, ...]:
    told.take(*_OF_THE_PROGRAM)
    return told.left()
