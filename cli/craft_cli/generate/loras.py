"""LoRAs as users write them, name:0.8, and as they are shown."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from craft_protos import files, lora_strength
from craft_protos.codec import field_of_json
from craft_protos.lora import DETAILS, LoraRef
from craft_protos.reasons import CraftError, invalid

_DETAIL = re.compile(r":(te|unet|lbw|start|stop|end|step)=")
_FIELDS = ("lora", "weight", *DETAILS)
_FILE = ".safetensors"  # what follows it and a colon is a weight


def parse(text: str) -> LoraRef:
    """`it`, `it:0.8`, or where one lies: `./it.safetensors:0.8`, `ORG/NAME:FILE`, `civitai:ID@VERSION:0.8`.

    Behind it may stand what a prompt's tag takes: `it:0.8:te=0.5:lbw=OUTALL:stop=0.7`. Raises USAGE.
    """
    first = _DETAIL.search(text)
    if first is None:
        return _weighted(text)
    named = _weighted(text[: first.start()])
    try:
        details = lora_strength.read(text[first.start() + 1 :].split(":"))
    except ValueError as error:
        raise CraftError("USAGE", f"-l {text}: {error}", "write it like -l it:0.8:stop=0.7") from error
    return replace(named, **details)


def _weighted(text: str) -> LoraRef:
    from craft_cli.registering import civitai

    if civitai.is_air(text):
        return LoraRef(text)
    name, colon, weight = text.rpartition(":")
    if not colon:
        return LoraRef(text)
    try:
        number = float(weight)
    except ValueError:
        number = math.nan
        if "/" in text and (not name.lower().endswith(_FILE) or files.is_there(text)):
            return LoraRef(text)
    if not name or not math.isfinite(number):
        raise CraftError("USAGE", f"-l {text}: {weight!r} is no weight", "write it like -l it:0.8")
    return LoraRef(name, number)


def from_json(value: Any) -> tuple[LoraRef, ...]:
    """A batch line's `loras`: {"lora", "weight"}, or text as -l takes it. Raises INVALID_FIELD."""
    if not isinstance(value, list):
        raise invalid("loras", "must be a list", '[{"lora": "it", "weight": 0.8}]')
    return tuple(_ref(one) for one in value)


def shown(uses: Iterable[dict[str, Any]]) -> str:
    """it:0.8, other:0.3:stop=0.5"""
    return ", ".join(f"{use['name']}:{lora_strength.written(use)}" for use in uses)


def fitness(fit: dict[str, Any]) -> str:
    """How a LoRA fits, in a few words; of a plan or of a model."""
    if not fit.get("total"):
        return "fits, by its architecture" if fit["fits"] else "does not fit" if fit["why_not"] else "not known"
    counted = f"{fit['matched']} of {fit['total']} tensors"
    if fit["matched"] == fit["total"]:
        return f"fits: all {fit['total']} tensors"
    return f"fits in part: {counted}" if fit["matched"] else f"does not fit: {counted}"


def partly_applied(uses: Iterable[dict[str, Any]]) -> list[str]:
    """A line about each LoRA of a picture that was not applied in full."""
    return [
        f"LoRA {use['name']} was applied in part: {use['matched']} of {use['total']} tensors"
        for use in uses
        if use.get("total") and use["matched"] < use["total"]
    ]


def _ref(value: Any) -> LoraRef:
    if isinstance(value, str):
        try:
            return parse(value)
        except CraftError as error:
            raise invalid("loras", error.message, error.hint) from error
    if not isinstance(value, dict) or not isinstance(value.get("lora"), str) or set(value) - set(_FIELDS):
        what = f"must be objects with lora and weight ({', '.join(DETAILS)} if wanted)"
        raise invalid("loras", what, '[{"lora": "it", "weight": 0.8}]')
    weight = value.get("weight")
    if isinstance(weight, bool) or not isinstance(weight, int | float | None):
        raise invalid("loras", f"{weight!r} is no weight", '[{"lora": "it", "weight": 0.8}]')
    try:
        details = {name: field_of_json(LoraRef, name, one) for name in DETAILS if (one := value.get(name)) is not None}
        return LoraRef(value["lora"], None if weight is None else float(weight), **details)
    except OverflowError as error:
        raise invalid("loras", f"a weight of {str(weight)[:20]}... is out of range") from error
