"""How strongly a LoRA counts: in the text encoders and in the denoiser, block by block, and over the steps.

Block weights are those of the extension LoRA Block Weight for AUTOMATIC1111's program: the text encoders come first,
then the blocks of a UNet (26, or those of them that its shorter lists name) or of FLUX.1's transformer (61).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from craft_protos.frozen import dataclass

BASE = 0  # the block of the text encoders; of FLUX.1's: CLIP
FLUX_T5, FLUX_IN, FLUX_DOUBLE, FLUX_SINGLE, FLUX_OUT = 1, 2, 3, 22, 60  # where each of FLUX.1's begins
UNET_IN, UNET_MID, UNET_OUT = 1, 13, 14  # where each of a UNet's begins
UNET_BLOCKS, FLUX_BLOCKS = 26, 61
LATEST_STEP = 100_000

_SHORT = {  # lists that name some of a UNet's blocks -> which of the 26; the others are 0
    12: (0, 5, 6, 8, 9, 13, 14, 15, 16, 17, 18, 19),
    17: (0, 2, 3, 5, 6, 8, 9, 13, *range(17, 26)),
    20: (*range(10), *range(13, 23)),
}
COUNTS = (*_SHORT, UNET_BLOCKS, FLUX_BLOCKS)

_PRESETS = {  # the extension's own names -> which of the 17 are 1
    "NONE": (),
    "ALL": range(17),
    "INS": range(4),
    "IND": (0, 4, 5, 6),
    "INALL": range(7),
    "MIDD": (0, *range(4, 12)),
    "OUTD": (0, *range(8, 12)),
    "OUTS": (0, *range(12, 17)),
    "OUTALL": (0, *range(8, 17)),
}
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)")
_WHOLE = re.compile(r"\d{1,6}")
_MOST_ITEMS = 8
_KNOWN = "te=, unet=, lbw=, start=, stop= and step="


@dataclass(frozen=True)
class Strength:
    """A job's LoRA: its weight, and where and when that is another one."""

    weight: float
    text_weight: float | None = None  # in the text encoders; None: the same
    blocks: tuple[float, ...] = ()  # of all blocks, each times the weight; none: 1 everywhere
    start: float | None = None  # shares of the steps between which it counts; above 1: the number of the step
    end: float | None = None

    def at(self, block: int | None, *, is_text: bool) -> float:
        """In a layer of that block; None: of none of them."""
        own = self.text_weight if is_text and self.text_weight is not None else self.weight
        return own * self.blocks[block] if self.blocks and block is not None else own

    @property
    def lasting(self) -> Strength:
        """The same at all steps."""
        return Strength(self.weight, self.text_weight, self.blocks)

    @property
    def of_texts(self) -> Strength:
        """What of it the text encoders know; equal ones make the same of a prompt."""
        own = self.weight if self.text_weight is None else self.text_weight
        return Strength(own, None, self.blocks[:FLUX_IN])

    def counts_at(self, call: int, calls: int) -> bool:
        """At the model call of that number of so many, as control pictures count: diffusers' pipelines have it so."""
        return call / calls >= share(self.start, calls, 0.0) and (call + 1) / calls <= share(self.end, calls, 1.0)


def share(told: float | None, steps: int, usual: float) -> float:
    """Of the steps, which one a number means: a share up to 1, and above it the beginning of that step."""
    if told is None:
        return usual
    return told if told <= 1 else (told - 1) / steps


def all_blocks(told: Sequence[float]) -> tuple[float, ...]:
    """The weight of every block: those that a short list does not name are 0."""
    places = _SHORT.get(len(told))
    if places is None:
        return tuple(told)
    known = dict(zip(places, told, strict=True))
    return tuple(known.get(block, 0.0) for block in range(UNET_BLOCKS))


def complaint(told: Mapping[str, Any]) -> str:
    """What is wrong with the fields of a LoRA besides its weight; "" where nothing is."""
    blocks = told.get("blocks") or ()
    if blocks and len(blocks) not in COUNTS:
        return f"blocks: are {len(blocks)}, and must be {', '.join(map(str, COUNTS[:-1]))} or {COUNTS[-1]}"
    for name in ("start", "end"):
        value = told.get(name)
        is_step = value is not None and value > 1 and not float(value).is_integer()
        if value is not None and (not 0 <= value <= LATEST_STEP or is_step):
            return f"{name}: must be a share from 0 to 1, or the whole number of a step, not {value:g}"
    return ""


def read(items: Sequence[str]) -> dict[str, Any]:
    """What stands behind a LoRA's name, between colons: `0.8`, `0.5:1`, `lbw=OUTALL`, `start=0.2`, ...

    Raises ValueError, saying what is wrong.
    """
    if len(items) > _MOST_ITEMS:
        raise ValueError(f"has {len(items)} parts behind its name; the most are {_MOST_ITEMS}")
    numbers = [_number(one) for one in items if "=" not in one]
    if len(numbers) > 2:
        raise ValueError("has more than two weights: those of blocks are written lbw=1,0,...")
    names = ("text_weight", "weight")[-len(numbers) :] if numbers else ()
    found: dict[str, Any] = dict(zip(names, numbers, strict=True))
    for item in items:
        if "=" in item:
            _read_named(item, found)
    if said := complaint(found):
        raise ValueError(said)
    return found


def _read_named(item: str, found: dict[str, Any]) -> None:
    name, _, value = (part.strip() for part in item.partition("="))
    match name.lower():
        case "te":
            found["text_weight"] = _number(value)
        case "unet":
            found["weight"] = _number(value)
        case "lbw":
            found["blocks"] = _blocks(value)
        case "start":
            found["start"] = _time(value)
        case "stop" | "end":
            found["end"] = _time(value)
        case "step":
            first, dash, last = value.partition("-")
            if not dash:
                raise ValueError(f"step={value[:40]} must name two steps, as step=5-10")
            found["start"], found["end"] = _time(first), _time(last)
        case _:
            raise ValueError(f"{name[:40]}= is not known there; known are {_KNOWN}")


def _blocks(value: str) -> tuple[float, ...]:
    if value.upper() == "FLUXALL":
        return (1.0,) * FLUX_BLOCKS
    if value.upper() == "ALL0.5":
        return (0.5,) * 17
    if (those := _PRESETS.get(value.upper())) is not None:
        return tuple(float(block in those) for block in range(17))
    if "," not in value:
        raise ValueError(
            f"lbw={value[:40]} is none of {', '.join(_PRESETS)}, ALL0.5 and FLUXALL, and no list of numbers"
        )
    return tuple(_number(one) for one in value.split(",", FLUX_BLOCKS))


def _number(text: str) -> float:
    stripped = text.strip()
    if not _NUMBER.fullmatch(stripped) or not math.isfinite(float(stripped)):
        raise ValueError(f"{stripped[:40]!r} is no weight")
    return float(stripped)


def _time(text: str) -> float:
    """`0.2` is a share, `10` a step: the first step begins at 0."""
    stripped = text.strip()
    if _WHOLE.fullmatch(stripped):
        return float(stripped) if int(stripped) > 1 else 0.0
    if not _NUMBER.fullmatch(stripped):
        raise ValueError(f"{stripped[:40]!r} is no share of the steps, and no step")
    if float(stripped) > 1:
        raise ValueError(f"{stripped[:40]} is more than all steps: a step is a whole number")
    return float(stripped)


def written(told: Mapping[str, Any]) -> str:
    """The fields of a LoRA as they stand behind its name: `0.8`, or `0.5:0.8:lbw=...`."""
    text, weight = told.get("text_weight"), f"{told['weight']:g}"
    parts = [weight if text is None else f"{text:g}:{weight}"]
    if blocks := told.get("blocks"):
        parts.append("lbw=" + ",".join(f"{one:g}" for one in blocks))
    parts += [
        f"{key}={_timed(told[name])}"
        for key, name in (("start", "start"), ("stop", "end"))
        if told.get(name) is not None
    ]
    return ":".join(parts)


def _timed(value: float) -> str:
    return f"{value:.0f}" if value > 1 else repr(float(value))
