"""LoRAs of a picture: as a request or a job names them, as a prompt does, and as they were applied."""

from __future__ import annotations

import re

from craft_protos.frozen import dataclass
from craft_protos.reasons import invalid
from craft_protos.rules import Range, ruled

MOST_LORAS = 16  # of one picture
_TAG = re.compile(r"\s*<(?:lora|lyco):([^<>:]+)(?::([^<>:]*))?>\s*", re.IGNORECASE)
_LIKE_A_TAG = re.compile(r"<\s*(?:lora|lyco)\b[^>]{0,80}>?", re.IGNORECASE)
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)")
_HOW = "write it as <lora:name:0.8>"


@dataclass(frozen=True)
class LoraRef:
    """A LoRA that a request asks for, or, with everything resolved, one of a job."""

    lora: str  # id, name, the beginning of a sha256 or a file name; in a job the id
    weight: float | None = ruled(None, Range(-10, 10))  # None: the LoRA's own; in a job never
    name: str = ""  # in a job
    sha256: str = ""  # in a job

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
    name, weight = found[1].strip(), found[2]
    if not name or (weight is not None and not _NUMBER.fullmatch(weight.strip())):
        raise invalid("prompt", f"{found[0].strip()[:100]!r} is no LoRA with one weight", _HOW)
    return LoraRef(name, None if weight is None else float(weight))
