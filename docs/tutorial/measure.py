"""How near a picture is to Pip: colours apart from the background, and where they are.

`distance` compares what is drawn on a plain background with Pip drawn by the script on the same one.
Both are cut out by what differs from the background, moved so that their centres meet, and compared
pixel by pixel: 0 for the same picture, 1 for the farthest one.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from docs.tutorial.character import COLOURS, SIDE, draw

_FOREGROUND = 60.0  # of 441: farther than this from the background's colour
_SIZE = 64  # pixels: what is compared is this large

Pixels = NDArray[np.float32]


def distance(path: Path, background: str) -> float:
    """Of a drawn picture from Pip."""
    return _difference(_cut(_pixels(Image.open(path)), background), _cut(_pixels(draw(background)), background))


def _pixels(picture: Image.Image) -> Pixels:
    return np.asarray(picture.convert("RGB").resize((SIDE, SIDE)), np.float32)


def _cut(pixels: Pixels, background: str) -> Pixels:
    """What is not background, centred on a canvas of the background's colour, made smaller."""
    colour = np.asarray(COLOURS[background], np.float32)
    is_drawn = _is_drawn(pixels, colour)
    canvas = np.tile(colour, (SIDE, SIDE, 1))
    if is_drawn.any():
        rows, columns = np.nonzero(is_drawn)
        shift = SIDE // 2 - round(float(rows.mean())), SIDE // 2 - round(float(columns.mean()))
        canvas = np.where(is_drawn[..., None], pixels, colour)
        canvas = np.roll(canvas, shift, axis=(0, 1))
    small = Image.fromarray(canvas.clip(0, 255).astype(np.uint8)).resize((_SIZE, _SIZE), Image.Resampling.BOX)
    return np.asarray(small, np.float32)


def _difference(one: Pixels, other: Pixels) -> float:
    """Of the foreground's colours, 0 to 1: relative to how much of the canvas either has drawn on."""
    apart = np.linalg.norm(one - other, axis=2) / np.sqrt(3 * 255.0**2)
    corner = other[0, 0]
    either = (np.linalg.norm(one - corner, axis=2) > _FOREGROUND) | (
        np.linalg.norm(other - corner, axis=2) > _FOREGROUND
    )
    return float(apart[either].mean()) if either.any() else 1.0


def _is_drawn(pixels: Pixels, background: Pixels) -> NDArray[np.bool_]:
    apart: NDArray[np.bool_] = np.linalg.norm(pixels - background, axis=2) > _FOREGROUND
    return apart
