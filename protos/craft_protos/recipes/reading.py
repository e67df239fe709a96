"""Which program a picture is of, and what it says: its own words, in the order of how sure they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from craft_protos.recipes import (
    automatic1111,
    comfyui,
    craft,
    draw_things,
    fooocus,
    invokeai,
    mflux,
    novelai,
    stealth,
    swarmui,
)
from craft_protos.recipes.containers import COMMENT, XMP, words_of
from craft_protos.recipes.recipe import MOST_SAYINGS, Recipe
from craft_protos.recipes.told import json_of

_COMMENTS = ("parameters", COMMENT, "Comment", "ImageDescription")
_OF_COMFYUI = ("Make", "Model", "ImageDescription")  # EXIF's tags, as in "prompt:{...}"


def read(data: bytes) -> Recipe | None:
    """A picture's recipe from its file's bytes; None where it has none that is understood."""
    words = words_of(data)
    found = _of_texts(words.texts) or _of_texts(stealth.texts_of(data))
    if found is None:
        return None
    if len(said := found.not_understood) > MOST_SAYINGS:
        more = f"{len(said) - MOST_SAYINGS} settings more"
        found = replace(found, not_understood=(*said[:MOST_SAYINGS], more))
    return found if found.width is not None else replace(found, width=words.width, height=words.height)


def _of_texts(texts: Mapping[str, str]) -> Recipe | None:
    return (
        craft.read(texts)
        or invokeai.read(texts)
        or novelai.read(texts)
        or _of_comments(texts)
        or comfyui.read(_graphs(texts))
        or draw_things.read(texts.get(XMP, ""))
    )


def _of_comments(texts: Mapping[str, str]) -> Recipe | None:
    for name in _COMMENTS:
        text = texts.get(name, "")
        found = _of_fields(fields) if (fields := json_of(text)) is not None else automatic1111.read(text)
        if found is not None:
            return found
    return None


def _of_fields(fields: dict[str, Any]) -> Recipe | None:
    if swarmui.is_of(fields):
        return swarmui.read(fields)
    if mflux.is_of(fields):
        return mflux.read(fields)
    if fooocus.is_of(fields):
        return fooocus.read(fields)
    if fields.keys() >= {"prompt", "workflow"}:  # what Civitai keeps of a ComfyUI's
        return comfyui.read({name: value for name, value in fields.items() if isinstance(value, str)})
    return None


def _graphs(texts: Mapping[str, str]) -> Mapping[str, str]:
    """ComfyUI's chunks; in WebP and JPEG they stand in EXIF's tags, behind their names."""
    found = {name: texts[name] for name in ("prompt", "workflow") if name in texts}
    for tag in _OF_COMFYUI:
        name, colon, text = texts.get(tag, "").partition(":")
        if colon and name.lower() in ("prompt", "workflow"):
            found.setdefault(name.lower(), text)
    return found
