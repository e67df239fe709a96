"""Shapes with a model's own number of pixels."""

from __future__ import annotations

import math

from craftd.models.model import Model

_RATIOS = {
    "square_hd": (1, 1),
    "square": (1, 1),
    "portrait_4_3": (3, 4),
    "portrait_16_9": (9, 16),
    "landscape_4_3": (4, 3),
    "landscape_16_9": (16, 9),
}


def side_lengths(shape: str, model: Model) -> tuple[int, int]:
    """(width, height), multiples of what the model asks for; `square` has half the side of `square_hd`."""
    across, down = _RATIOS[shape]
    budget = model.defaults.width * model.defaults.height / (4 if shape == "square" else 1)
    unit = math.sqrt(budget / (across * down))
    return _rounded(across * unit, model.granularity), _rounded(down * unit, model.granularity)


def _rounded(side: float, granularity: int) -> int:
    return max(granularity, round(side / granularity) * granularity)
