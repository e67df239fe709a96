"""What a control model is shown of a picture, by the schema's CONTROL_KINDS. Nothing here needs torch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from craft_protos.generate import MAP, MAPS
from numpy.typing import NDArray

from craftd.worker.inputs import outlines

Pixels = NDArray[np.uint8]  # height, width, 3


def made_of(kind: str, pixels: Pixels) -> Pixels:
    """The same size again."""
    return _KINDS[kind](pixels)


def ground_of(kind: str) -> str:
    """The colour that is taken to lie under what shines through: a map's nothing is black, a picture's is white."""
    return "black" if kind in (MAP, *MAPS) else "white"


def _as_it_is(pixels: Pixels) -> Pixels:
    return pixels


def _lines(find: Callable[[Pixels], NDArray[np.uint8]]) -> Callable[[Pixels], Pixels]:
    return lambda pixels: np.repeat(find(pixels)[..., None], 3, axis=2)


def _inverted(pixels: Pixels) -> Pixels:
    return 255 - pixels


_KINDS: dict[str, Callable[[Pixels], Pixels]] = {
    **dict.fromkeys((MAP, *MAPS, "tile"), _as_it_is),
    "invert": _inverted,
    "canny": _lines(outlines.canny),
    "edges": _lines(outlines.edges),
    "scribble": _lines(outlines.scribble),
}
