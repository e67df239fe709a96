"""Shapes with a model's own number of pixels: one table for the Lora API's names and for the page's list."""

from __future__ import annotations

import math

from craft_protos.settings import LimitSettings

from craftd.jobs import validate
from craftd.models.model import Model

_RATIOS = {
    "square_hd": (1, 1),
    "square": (1, 1),
    "portrait_4_3": (3, 4),
    "portrait_16_9": (9, 16),
    "landscape_4_3": (4, 3),
    "landscape_16_9": (16, 9),
}
SHAPES = tuple(_RATIOS)


def side_lengths(shape: str, model: Model, limits: LimitSettings) -> tuple[int, int]:
    """(width, height): the nearest that the model can draw; `square` has half the side of `square_hd`."""
    across, down = _RATIOS[shape]
    budget = model.defaults.width * model.defaults.height / (4 if shape == "square" else 1)
    unit = math.sqrt(budget / (across * down))
    return validate.sizes(model, limits).nearest(across * unit, down * unit)
