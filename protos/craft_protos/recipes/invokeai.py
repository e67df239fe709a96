"""InvokeAI's metadata: a JSON object in the chunk `invokeai_metadata`, before version 3 in `sd-metadata`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from craft_protos.recipes.recipe import MOST_LORAS, LoraUse, Named, Recipe
from craft_protos.recipes.told import Told, json_of, named, number_of

_PROGRAM = "InvokeAI"
_OF_THE_PROGRAM = (
    *("app_version", "generation_mode", "rand_device", "canvas_v2_metadata", "ref_images", "_canvas_objects"),
    *("hrf_enabled", "img2img", "type", "id", "is_intermediate", "workflow"),
)
_KARRAS = "_k"  # how a scheduler's name ends


def read(texts: Mapping[str, str]) -> Recipe | None:
    """None where neither chunk is there and an object."""
    if found := json_of(texts.get("invokeai_metadata", "")):
        return _new(Told(found))
    if found := json_of(texts.get("sd-metadata", "")):
        return _old(found)
    return None


def _new(told: Told) -> Recipe:
    sampler, schedule = _sampler(told.text("scheduler"))
    skipped = told.whole("clip_skip") or 0
    distilled, scale = told.number("guidance"), told.number("cfg_scale")
    return Recipe(
        program=_PROGRAM,
        prompt=told.text("positive_prompt", "prompt"),
        negative_prompt=told.text("negative_prompt"),
        width=told.whole("width"),
        height=told.whole("height"),
        steps=told.whole("steps"),
        guidance_scale=scale if distilled is None else distilled,
        guidance_rescale=told.number("cfg_rescale_multiplier") or None,
        seed=told.whole("seed"),
        sampler=sampler,
        schedule=schedule,
        clip_skip=skipped + 1 if skipped > 0 else None,
        strength=told.number("strength"),
        model=_model(told.take("model")),
        loras=tuple(_use(one) for one in told.entries("loras")[:MOST_LORAS] if isinstance(one, dict)),
        not_understood=_left(told),
    )


def _left(told: Told) -> tuple[str, ...]:
    told.take(*_OF_THE_PROGRAM)
    return told.left()


def _old(whole: dict[str, Any]) -> Recipe:
    told = Told(whole)
    image = Told(told.fields("image"))
    text = image.take("prompt")
    if isinstance(text, list) and text and isinstance(text[0], dict):  # of several, weighted, the first
        text = text[0].get("prompt")
    sampler, schedule = _sampler(image.text("sampler").removeprefix("k_"))
    positive, negative = _in_brackets(text if isinstance(text, str) else "")
    image.take("height_orig", "width_orig", "postprocessing", "variations", "type", "hires_fix", "rand_device")
    model = named(told.text("model_weights"), told.text("model_hash"))
    told.take("model", "model_id", "app_id", "app_version")
    return Recipe(
        program=_PROGRAM,
        prompt=positive,
        negative_prompt=negative,
        width=image.whole("width"),
        height=image.whole("height"),
        steps=image.whole("steps"),
        guidance_scale=image.number("cfg_scale"),
        seed=image.whole("seed"),
        sampler=sampler,
        schedule=schedule,
        strength=image.number("strength"),
        model=model,
        not_understood=(*image.left(), *told.left()),
    )


def _in_brackets(text: str) -> tuple[str, str]:
    """A prompt and what stood in brackets in it, which was not to be drawn."""
    begin, end = text.rfind("["), text.rfind("]")
    if begin < 0 or end < begin:
        return text.strip(), ""
    return (text[:begin] + text[end + 1 :]).strip(), text[begin + 1 : end].strip()


def _sampler(scheduler: str) -> tuple[str, str]:
    return scheduler.removesuffix(_KARRAS), "Karras" if scheduler.endswith(_KARRAS) else ""


def _model(told: Any) -> Named:
    """Of version 3 and of those since."""
    fields = told if isinstance(told, dict) else {}
    return named(fields.get("name") or fields.get("model_name"), fields.get("hash"))


def _use(told: dict[str, Any]) -> LoraUse:
    strength = number_of(told.get("weight"))
    file = _model(told.get("model") or told.get("lora"))
    return LoraUse(file.name, file.hash, file.version, 1.0 if strength is None else strength)
