"""Control pictures as users write them: canny=room.png:0.8, and as they are shown."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from craft_protos import files
from craft_protos.frozen import dataclass
from craft_protos.generate import CONTROL_KINDS, LARGEST_CONTROL, MAP, Control
from craft_protos.reasons import CraftError

_FORM = "KIND=PATH[:SCALE]"
_STEPS = re.compile(r"\s*(\d*\.?\d*)\s*(?:\.\.|-)\s*(\d*\.?\d*)\s*")


@dataclass(frozen=True)
class Named:
    """One as an option names it."""

    kind: str
    path: str
    scale: float | None = None


def parse(text: str) -> Named:
    """`canny=room.png`, `none=depth.png:0.8`; a file whose name ends like a scale is that file. Raises USAGE."""
    kind, equals, rest = text.partition("=")
    if not equals or not rest:
        raise CraftError(
            "USAGE", f"--control {text}: is no {_FORM}", f"kinds: {', '.join(CONTROL_KINDS)}; {MAP}: a map"
        )
    path, colon, scale = rest.rpartition(":")
    if not colon or files.is_there(rest) or not re.fullmatch(r"[\d.+eE-]+", scale):
        return Named(kind.strip().lower(), rest)
    try:
        number = float(scale)
    except ValueError:
        number = math.nan
    if not path or not 0 <= number <= LARGEST_CONTROL:
        message = f"--control {text}: {scale!r} is no scale from 0 to {LARGEST_CONTROL:g}"
        raise CraftError("USAGE", message, f"write it like --control {kind}={path or 'room.png'}:0.8")
    return Named(kind.strip().lower(), path, number)


def steps(text: str | None) -> tuple[float | None, float | None]:
    """`0..0.8`, `0.2..`: the shares of the steps between which controls count. Raises USAGE."""
    if text is None:
        return None, None
    found = _STEPS.fullmatch(text)
    try:
        shares = [float(one) if one else None for one in found.groups()] if found else []
    except ValueError:
        shares = []
    if len(shares) != 2 or any(one is not None and one > 1 for one in shares):
        message = f"--control-steps {text}: not two shares of the steps from 0 to 1"
        raise CraftError("USAGE", message, "write it as --control-steps 0..0.8")
    return shares[0], shares[1]


def asked(
    written: Sequence[str], models: Sequence[str], between: str | None, read: Callable[[str], str]
) -> tuple[Control, ...]:
    """The controls of a request that options ask for; `read` gives the sha256 of the picture at a path.

    Raises USAGE and what reading raises.
    """
    if len(models) not in (0, 1, len(written)):
        message = f"--control-model is given {len(models)} times, --control {len(written)} times"
        raise CraftError("USAGE", message, "give one model for all, or one for each in their order")
    named = list(models) * len(written) if len(models) == 1 else list(models) or [""] * len(written)
    start, end = steps(between)
    return tuple(
        Control(read(one.path), one.kind, model, one.scale, start, end)
        for one, model in zip(map(parse, written), named, strict=True)
    )


def paths(written: Iterable[str]) -> list[str]:
    """The path of each picture that `--control` names. Raises USAGE."""
    return [parse(one).path for one in written]


def shown(uses: Iterable[dict[str, Any]]) -> list[str]:
    """Lines about controls that are resolved: "canny by some-model, 0.8, of the steps 0 to 0.8"."""
    return [
        f"{use['kind']} by {use['model']}, scale {use['scale']:g}"
        + ("" if (use["start"], use["end"]) == (0, 1) else f", from {use['start']:g} to {use['end']:g} of the steps")
        for use in uses
    ]
