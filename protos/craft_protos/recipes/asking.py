"""From a recipe to a request: what craft can honour, and in a line each what it cannot."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from craft_protos import words
from craft_protos.codec import rule_of
from craft_protos.frozen import dataclass
from craft_protos.generate import LANCZOS, GenerateRequest, Hires
from craft_protos.recipes.recipe import Recipe
from craft_protos.recipes.sampling import sampler_of
from craft_protos.recipes.told import shown

_PLAIN = ("width", "height", "steps", "guidance_scale", "guidance_rescale", "seed", "clip_skip")
_NOT_OF_FLOW = ("clip_skip", "guidance_rescale")
_ANY_SEED = -1
_DRAWN_FROM = "it was drawn from another picture, which its file has not"


@dataclass(frozen=True)
class Asked:
    """A request without its model and LoRAs, and what the file says that is not in it."""

    request: GenerateRequest
    strength: float | None  # for a start picture, where it was drawn from one
    not_honoured: tuple[str, ...]


def asked(recipe: Recipe, *, is_flow: bool = False, upscalers: Collection[str] = ()) -> Asked:
    """`is_flow`: of the model that will draw; `upscalers`: the names of those that are here."""
    fields, left = _fields(recipe, is_flow)
    sampler, unknown = sampler_of(recipe.sampler, recipe.schedule, is_flow=is_flow)
    hires, unread = _hires(recipe.hires, upscalers)
    drawn = words.drawn(recipe.prompt, recipe.negative_prompt, syntax=recipe.prompt_syntax)
    words_of = (f"in the prompt, read as words: {shown(one)}" for one in drawn)
    strength = recipe.strength if _complaint(Hires, "strength", recipe.strength) == "" else None
    start = (f"strength: {strength:g}: {_DRAWN_FROM}",) if strength is not None else ()
    request = GenerateRequest(
        prompt=recipe.prompt,
        negative_prompt=recipe.negative_prompt,
        prompt_syntax=recipe.prompt_syntax,
        sampler=sampler,
        hires=hires,
        **fields,
    )
    return Asked(request, strength, (*left, *unknown, *unread, *start, *words_of, *recipe.not_understood))


def _fields(recipe: Recipe, is_flow: bool) -> tuple[dict[str, Any], list[str]]:
    """Those that a request may have; of the others what is wrong."""
    fields, left = dict[str, Any](), list[str]()
    for name in _PLAIN:
        value = getattr(recipe, name)
        if value is None or (name, value) == ("seed", _ANY_SEED):
            continue
        if complaint := _complaint(GenerateRequest, name, value):
            left.append(f"{name}: {shown(value)}: {complaint}")
        elif is_flow and name in _NOT_OF_FLOW:
            left.append(f"{name}: {shown(value)}: the model has none")
        else:
            fields[name] = value
    if "width" not in fields or "height" not in fields:
        for name in ("width", "height"):
            fields.pop(name, None)
    return fields, left


def _complaint(kind: type, name: str, value: Any) -> str:
    rule = rule_of(kind, name)
    return "" if rule is None or value is None else rule.complaint(value)


def _hires(told: Hires | None, upscalers: Collection[str]) -> tuple[Hires | None, list[str]]:
    """The second drawing; another upscaler than those that are here is named, and the usual one enlarges."""
    if told is None:
        return None, []
    left = [
        f"hires {name}: {shown(getattr(told, name))}"
        for name in ("scale", "strength", "steps")
        if _is_wrong(told, name)
    ]
    if any(one.startswith("hires scale") for one in left):
        return None, left
    named = next((one for one in (LANCZOS, *upscalers) if one.lower() == told.upscaler.lower()), "")
    if not named and told.upscaler:
        left.append(f"hires upscaler: {shown(told.upscaler)}: the usual one is used")
    bad = {name: None for name in ("strength", "steps") if _is_wrong(told, name)}
    return replace(told, upscaler=named, **bad), left


def _is_wrong(told: Hires, name: str) -> bool:
    return bool(_complaint(Hires, name, getattr(told, name)))
