"""LoRAs written into a prompt, as other programs have it: <lora:name:0.8>."""

from __future__ import annotations

import re
from dataclasses import dataclass

from craft_protos.reasons import invalid

from craftd.jobs.job import LoraWish

_TAG = re.compile(r"\s*<(?:lora|lyco):([^<>:]+)(?::([^<>:]*))?>\s*", re.IGNORECASE)
_LIKE_A_TAG = re.compile(r"<\s*(?:lora|lyco)\b[^>]{0,80}>?", re.IGNORECASE)
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)")
_HOW = "write it as <lora:name:0.8>"


@dataclass(frozen=True)
class Parsed:
    """A prompt without its tags, and what they ask for, in their order."""

    text: str
    wishes: tuple[LoraWish, ...] = ()


def parse(prompt: str) -> Parsed:
    """Raises INVALID_FIELD for what looks like a tag and is none."""
    wishes: list[LoraWish] = []

    def take(found: re.Match[str]) -> str:
        wishes.append(_wish(found))
        is_inside = found.start() > 0 and found.end() < len(prompt)
        return " " if is_inside and prompt[found.end()] not in ",.;:!?" else ""

    text = _TAG.sub(take, prompt)
    refuse(text, "prompt")
    return Parsed(text.strip() if wishes else prompt if prompt.strip() else "", tuple(wishes))


def refuse(text: str, field: str) -> None:
    """Raises INVALID_FIELD where a tag stands."""
    found = _LIKE_A_TAG.search(text)
    if found:
        hint = _HOW if field == "prompt" else "LoRAs belong into the prompt"
        raise invalid(field, f"{found[0][:100]!r} is no LoRA that can be used there", hint)


def _wish(found: re.Match[str]) -> LoraWish:
    name, weight = found[1].strip(), found[2]
    if not name or (weight is not None and not _NUMBER.fullmatch(weight.strip())):
        raise invalid("prompt", f"{found[0].strip()[:100]!r} is no LoRA with one weight", _HOW)
    return LoraWish(name, None if weight is None else float(weight))
