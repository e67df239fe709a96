"""Draw Things' metadata: a JSON object in XMP's `exif:UserComment`."""

from __future__ import annotations

import html
import re
from typing import Any

from craft_protos.recipes.recipe import MOST_LORAS, LoraUse, Recipe
from craft_protos.recipes.told import Told, json_of, named, number_of

_BEGIN, _END = "<exif:UserComment", "</exif:UserComment>"
_OF_THE_PROGRAM = ("profile", "version")


def read(xmp: str) -> Recipe | None:
    """None where the packet has no such object."""
    fields = json_of(_comment(xmp))
    if fields is None or not {"c", "steps"} <= fields.keys():
        return None
    told = Told(fields)
    more = told.fields("v2")
    listed = told.entries("lora") or _entries(more.get("loras"))
    size = re.fullmatch(r"(\d{1,6})x(\d{1,6})", told.text("size"))
    strength = told.number("strength")
    sampler, schedule = _sampler(told.text("sampler"))
    told.take(*_OF_THE_PROGRAM)
    return Recipe(
        program="Draw Things",
        prompt=told.text("c").strip(),
        negative_prompt=told.text("uc").strip(),
        width=int(size[1]) if size else None,
        height=int(size[2]) if size else None,
        steps=told.whole("steps"),
        guidance_scale=told.number("scale"),
        seed=told.whole("seed"),
        sampler=sampler,
        schedule=schedule,
        strength=None if strength == 1 else strength,
        clip_skip=_clip_skip(more),
        model=named(told.text("model")),
        loras=tuple(_use(one) for one in listed[:MOST_LORAS] if isinstance(one, dict)),
        not_understood=told.left(),
    )


def _comment(xmp: str) -> str:
    """The innermost text of the comment's element."""
    begin = xmp.find(_BEGIN)
    end = xmp.find(_END, begin)
    if begin < 0 or end < 0:
        return ""
    inner = xmp[begin:end]
    at, stop = inner.find("{"), inner.rfind("}")
    return html.unescape(inner[at : stop + 1]) if 0 <= at < stop else ""


def _sampler(name: str) -> tuple[str, str]:
    """Its names of a schedule, which others have not, stand behind the sampler's."""
    for ending, schedule in ((" Trailing", "SGM Uniform"), (" AYS", "Align Your Steps"), (" Karras", "Karras")):
        if name.endswith(ending):
            return name.removesuffix(ending), schedule
    return name, ""


def _clip_skip(more: dict[str, Any]) -> int | None:
    found = more.get("clipSkip")
    return found if isinstance(found, int) and not isinstance(found, bool) and found > 1 else None


def _entries(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _use(told: dict[str, Any]) -> LoraUse:
    strength, file = number_of(told.get("weight")), named(told.get("model") or told.get("file"))
    return LoraUse(file.name, file.hash, weight=1.0 if strength is None else strength)
