"""LoRAs of a picture: as a request or a job names them, as a prompt does, and as they were applied."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from craft_protos import lora_strength
from craft_protos.frozen import dataclass
from craft_protos.lora_strength import LATEST_STEP, Strength, all_blocks
from craft_protos.reasons import invalid
from craft_protos.rules import Length, Range, ruled

MOST_LORAS = 16  # of one picture
_TAG = re.compile(r"\s*<(?:lora|lyco):([^<>:]+)((?::[^<>:]*)*)>\s*", re.IGNORECASE)
_LIKE_A_TAG = re.compile(r"<\s*(?:lora|lyco)\b[^>]{0,80}>?", re.IGNORECASE)
_HOW = "write it as <lora:name:0.8>, or with more as docs/loras.md has it"


DETAILS = ("text_weight", "blocks", "start", "end")  # fields that most LoRAs leave alone


@dataclass(frozen=True)
class LoraRef:
    """A LoRA that a request asks for, or, with everything resolved, one of a job."""

    lora: str  # id, name, the beginning of a sha256 or a file name; in a job the id
    weight: float | None = ruled(None, Range(-10, 10))  # None: the LoRA's own; in a job never
    name: str = ""  # in a job
    sha256: str = ""  # in a job
    text_weight: float | None = ruled(None, Range(-10, 10))  # of the text encoders; None: as the weight is
    blocks: tuple[float, ...] = ruled((), Length(lora_strength.FLUX_BLOCKS))  # each times the weight; none: 1
    start: float | None = ruled(None, Range(0, LATEST_STEP))  # shares of the steps; above 1: a step
    end: float | None = ruled(None, Range(0, LATEST_STEP))

    @property
    def strength(self) -> Strength:
        """Of a job's LoRA."""
        return Strength(self.scale, self.text_weight, all_blocks(self.blocks), self.start, self.end)

    @property
    def details(self) -> dict[str, Any]:
        """What is said of its strength beside the weight."""
        told = {name: getattr(self, name) for name in DETAILS}
        return {name: value for name, value in told.items() if value not in (None, ())}

    @property
    def scale(self) -> float:
        """The weight of a job's LoRA, which always has one."""
        assert self.weight is not None, self.lora
        return self.weight


def parse_tags(prompt: str) -> tuple[str, tuple[LoraRef, ...]]:
    """A prompt without its <lora:name:0.8>, and the LoRAs of those, in their order.

    Raises INVALID_FIELD for what looks like a tag and is none.
    """
    refs: list[LoraRef] = []

    def take(found: re.Match[str]) -> str:
        refs.append(_ref(found))
        is_inside = found.start() > 0 and found.end() < len(prompt)
        return " " if is_inside and prompt[found.end()] not in ",.;:!?" else ""

    text = _TAG.sub(take, prompt)
    refuse_tags(text, "prompt")
    return (text.strip() if refs else prompt if prompt.strip() else ""), tuple(refs)


def parse_named(text: str) -> LoraRef:
    """NAME or NAME:WEIGHT, with more behind it as in a prompt's tag. Raises INVALID_FIELD."""
    name, *rest = text.split(":")
    return _named(name.strip(), rest, "loras", text, "write it as NAME or NAME:0.8")


def refuse_tags(text: str, field: str) -> None:
    """Raises INVALID_FIELD where the text of a field has a tag, or what looks like one."""
    found = _LIKE_A_TAG.search(text)
    if found:
        hint = _HOW if field == "prompt" else "LoRAs belong into the prompt"
        raise invalid(field, f"{found[0][:100]!r} is no LoRA that can be used there", hint)


def has_tags(prompt: str) -> bool:
    return _TAG.search(prompt) is not None


def without_tags(prompt: str) -> str:
    return _TAG.sub(" ", prompt)


def _ref(found: re.Match[str]) -> LoraRef:
    return _named(found[1].strip(), found[2].split(":")[1:], "prompt", found[0].strip(), _HOW)


def _named(name: str, rest: Sequence[str], field: str, text: str, hint: str) -> LoraRef:
    """`rest`: what stands behind the name. Raises INVALID_FIELD of the field, showing its text."""
    try:
        if not name:
            raise ValueError("names none")
        return LoraRef(name, **lora_strength.read(rest))
    except ValueError as error:
        raise invalid(field, f"{text[:100]!r}: {error}", hint) from error
