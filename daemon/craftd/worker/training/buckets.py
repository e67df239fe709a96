"""Aspect-ratio buckets: each picture is trained at a size of its own shape and of the resolution's area."""

from __future__ import annotations

import math
from functools import lru_cache

_MOST_RATIO = 2.0  # longer sides are cropped
_STEP = 64  # pixels between two buckets' sides, at resolutions where that is an eighth or less


def bucket(width: int, height: int, resolution: int, unit: int) -> tuple[int, int]:
    """The (width, height) that a picture is trained at; both are multiples of `unit`."""
    wanted = math.log(width / height)
    return min(sizes(resolution, unit), key=lambda size: abs(math.log(size[0] / size[1]) - wanted))


@lru_cache
def sizes(resolution: int, unit: int) -> tuple[tuple[int, int], ...]:
    """All of them, the square first; none is larger than the resolution's square."""
    step = _step(resolution, unit)
    side = max(step, resolution // step * step)
    found = [(side, side)]
    for long in range(side + step, int(side * _MOST_RATIO) + 1, step):
        short = side * side // long // step * step
        if short and long / short <= _MOST_RATIO:
            found += [(long, short), (short, long)]
    return tuple(found)


def _step(resolution: int, unit: int) -> int:
    return max(unit, min(_STEP, resolution // 8) // unit * unit)
