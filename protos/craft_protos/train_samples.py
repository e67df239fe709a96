"""A sample's prompt with what may stand behind it, as kohya's scripts have it in files: `a cat --w 512 --s 20`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from craft_protos.generate import SEED_LIMIT
from craft_protos.reasons import invalid

_WHOLE = re.compile(r"\d{1,16}")
_NUMBER = re.compile(r"\d{1,6}(\.\d{0,6})?")
_WORD = re.compile(r"([A-Za-z]{1,6}) (.*)", re.DOTALL)
_WHOLES = {
    "w": ("width", 64, 65536),
    "h": ("height", 64, 65536),
    "d": ("seed", 0, SEED_LIMIT - 1),
    "s": ("steps", 1, 1000),
}
_NUMBERS = {"l": ("guidance_scale", 0.0, 100.0), "g": ("guidance_scale", 0.0, 100.0)}
# Others that kohya's scripts know, which draw nothing else here.
_IGNORED = ("ss", "cn", "ctr", "rcfg", "fs", "am")


@dataclass(frozen=True)
class SamplePrompt:
    """None: as the training has it."""

    prompt: str
    negative_prompt: str = ""
    width: int | None = None
    height: int | None = None
    seed: int | None = None
    steps: int | None = None
    guidance_scale: float | None = None
    ignored: tuple[str, ...] = ()  # of what stands behind it


def parse(text: str) -> SamplePrompt:
    """What does not look like one of those settings is the prompt's. Raises INVALID_FIELD."""
    prompt, *parts = text.split(" --")
    told: dict[str, object] = {}
    ignored: list[str] = []
    for part in parts:
        found = _WORD.fullmatch(part)
        name = found[1].lower() if found else ""
        if found is None or name not in {*_WHOLES, *_NUMBERS, *_IGNORED, "n"}:
            prompt = f"{prompt} --{part}"
        elif name in _IGNORED:
            ignored.append(f"--{part.strip()}")
        elif name == "n":
            told["negative_prompt"] = found[2].strip()
        else:
            field, value = _setting(name, found[2].strip())
            told[field] = value
    return SamplePrompt(prompt.strip(), ignored=tuple(ignored), **told)  # type: ignore[arg-type]


def ignored(prompts: Iterable[str]) -> list[str]:
    """Sentences about what means nothing here."""
    return [
        f"sample {one.prompt[:40]!r}: {part} means nothing here" for one in map(parse, prompts) for part in one.ignored
    ]


def _setting(name: str, text: str) -> tuple[str, float]:
    field, least, most = _WHOLES.get(name) or _NUMBERS[name]
    form = _WHOLE if name in _WHOLES else _NUMBER
    value = (int if name in _WHOLES else float)(text) if form.fullmatch(text) else None
    if value is None or not least <= value <= most:
        raise invalid(
            "sample_prompts", f"--{name} {text[:20]!r} is no {field.replace('_', ' ')}", f"from {least} to {most}"
        )
    return field, value
