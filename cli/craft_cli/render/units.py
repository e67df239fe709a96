"""Durations and sizes as people write and read them."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime

from craft_protos.reasons import CraftError

_MOST = 2**31 - 1
_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


def seconds(text: str, option: str) -> float:
    """90, 90s, 5m, 2h, 30d, 1w. Raises USAGE."""
    found = re.fullmatch(r"\s*(-?\d+(?:\.\d+)?)\s*([smhdw]?)\s*", text)
    if found is None:
        raise CraftError("USAGE", f"{option}: {text!r} is no duration", "write it like 90s, 5m, 2h or 30d")
    number = float(found[1]) * _SECONDS[found[2]]
    if not math.isfinite(number):
        raise CraftError("USAGE", f"{option}: {text[:20]!r}... is too long", "write it like 90s, 5m, 2h or 30d")
    return number


def age_s(text: str, option: str) -> float:
    """As `seconds`, but "3" alone is not taken for three of anything. Raises USAGE."""
    if text.strip().lstrip("-").replace(".", "", 1).isdigit() and float(text) != 0:
        number = text.strip()[:20]
        raise CraftError("USAGE", f"{option}: {number} of what?", f"write {number}d for days, or s, m, h, w")
    found = seconds(text, option)
    if found < 0:
        raise CraftError("USAGE", f"{option}: {text[:20]!r} is not in the past", "write it like 2h or 30d")
    return found


def require_range(number: float, option: str, least: int, most: int = _MOST) -> None:
    """Raises USAGE."""
    if not least <= number <= most:  # and so nothing that is no number
        limits = f"{least} or more" if most == _MOST and number < most else f"from {least} to {most}"
        raise CraftError("USAGE", f"{option} must be {limits}, not {number:.12g}", f"see what {option} means: --help")


def counted(count: int, what: str) -> str:
    """ "1 job", "1,200 jobs"; `what` is a plural."""
    return f"{count:,} {what.removesuffix('s') if count == 1 else what}"


def size(count: int) -> str:
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} B"


def duration(time_s: float) -> str:
    """ "0.4 s", "12 s", "3 min 20 s", "2 h 5 min"."""
    if time_s < 9.95:
        return f"{time_s:.1f} s"
    whole = round(time_s)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def age(seconds_ago: float) -> str:
    """3 s, 5 min, 2 h, 4 d."""
    for unit, factor in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds_ago >= factor:
            return f"{seconds_ago // factor:.0f} {unit}"
    return f"{max(0.0, seconds_ago):.0f} s"


def age_s_of(epoch_s: float) -> float:
    return datetime.now(UTC).timestamp() - epoch_s


def age_of(epoch_s: float) -> str:
    return age(age_s_of(epoch_s)) if epoch_s else ""
