"""LoRAs as users write them, name:0.8, and as they are shown."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from craft_protos.reasons import CraftError, invalid

if TYPE_CHECKING:
    from craft_protos import jobs_pb2

_TAG = re.compile(r"<(?:lora|lyco):[^<>]*>", re.IGNORECASE)


@dataclass(frozen=True)
class LoraUse:
    """One LoRA of a picture; None: its own weight."""

    lora: str
    weight: float | None = None

    def add_to(self, generate: jobs_pb2.GenerateSpec) -> None:
        try:
            use = generate.loras.add(lora=self.lora)
        except UnicodeEncodeError as error:
            raise invalid("loras", "not valid text (it is not UTF-8)") from error
        if self.weight is not None:
            use.weight = self.weight


def parse(text: str) -> LoraUse:
    """`it`, `it:0.8`. Raises USAGE."""
    name, colon, weight = text.rpartition(":")
    if not colon:
        return LoraUse(text)
    try:
        number = float(weight)
    except ValueError:
        number = math.nan
    if not name or not math.isfinite(number):
        raise CraftError("USAGE", f"-l {text}: {weight!r} is no weight", "write it like -l it:0.8")
    return LoraUse(name, number)


def from_json(value: Any) -> tuple[LoraUse, ...]:
    """A batch line's `loras`: {"lora", "weight"}, or text as -l takes it. Raises INVALID_FIELD."""
    if not isinstance(value, list):
        raise invalid("loras", "must be a list", '[{"lora": "it", "weight": 0.8}]')
    return tuple(_use(one) for one in value)


def has_tags(prompt: str) -> bool:
    return _TAG.search(prompt) is not None


def without_tags(prompt: str) -> str:
    return _TAG.sub(" ", prompt)


def shown(uses: Iterable[dict[str, Any]]) -> str:
    """it:0.8, other:0.3"""
    return ", ".join(f"{use['name']}:{use['weight']:g}" for use in uses)


def _use(value: Any) -> LoraUse:
    if isinstance(value, str):
        try:
            return parse(value)
        except CraftError as error:
            raise invalid("loras", error.message, error.hint) from error
    if not isinstance(value, dict) or not isinstance(value.get("lora"), str) or set(value) - {"lora", "weight"}:
        raise invalid("loras", "must be objects with lora and weight", '[{"lora": "it", "weight": 0.8}]')
    weight = value.get("weight")
    if isinstance(weight, bool) or not isinstance(weight, int | float | None):
        raise invalid("loras", f"{weight!r} is no weight", '[{"lora": "it", "weight": 0.8}]')
    try:
        return LoraUse(value["lora"], None if weight is None else float(weight))
    except OverflowError as error:
        raise invalid("loras", f"a weight of {str(weight)[:20]}... is out of range") from error
