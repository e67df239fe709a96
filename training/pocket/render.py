"""Scenes to pixels: the icons, placed, sized, tilted and sometimes mirrored."""

from __future__ import annotations

import io
import random
from functools import cache

import numpy as np
import resvg_py
from numpy.typing import NDArray
from PIL import Image

from training.pocket.concepts import COLORS, Concept, Scene

SIDE = 256
_RASTER_SIDE = 288
_BACKGROUND_JITTER = 8

Pixels = NDArray[np.uint8]


@cache
def icon(concept: Concept) -> Image.Image:
    """The concept's picture, RGBA with premultiplied alpha, 288x288."""
    png = resvg_py.svg_to_bytes(
        svg_string=concept.icon_path.read_text(encoding="utf-8"), width=_RASTER_SIDE, height=_RASTER_SIDE
    )
    return Image.open(io.BytesIO(bytes(png))).convert("RGBa")


def render(scene: Scene, rng: random.Random) -> Pixels:
    """One view of the scene, uint8 (256, 256, 3); `rng` decides placement, size and tilt."""
    canvas = np.empty((SIDE, SIDE, 3), np.float32)
    canvas[:] = _background(scene.background, rng)
    for concept, place in zip(scene.concepts, _layout(scene, rng), strict=True):
        _paste(canvas, concept, place, rng)
    return canvas.round().clip(0, 255).astype(np.uint8)


def _background(color: str, rng: random.Random) -> tuple[float, ...]:
    if color == "white":
        return (255.0, 255.0, 255.0)
    return tuple(v + rng.uniform(-_BACKGROUND_JITTER, _BACKGROUND_JITTER) for v in COLORS[color])


def _layout(scene: Scene, rng: random.Random) -> list[tuple[float, float, float]]:
    """(side, centre x, centre y) of each concept, as fractions of the picture."""
    if len(scene.concepts) == 2:
        return [
            (rng.uniform(0.40, 0.47), centre + rng.uniform(-0.015, 0.015), rng.uniform(0.42, 0.58))
            for centre in (0.26, 0.74)
        ]
    low, high = {"small": (0.32, 0.42), "large": (0.88, 0.97), None: (0.62, 0.78)}[scene.size]
    if scene.place in ("left", "right") and scene.size is None:
        low, high = 0.42, 0.52
    side = rng.uniform(low, high)
    if scene.place in ("left", "right"):
        x = 0.27 if scene.place == "left" else 0.73
        return [(side, x + rng.uniform(-0.02, 0.02), rng.uniform(0.4, 0.6))]
    spread = 0.02 if scene.place == "center" or scene.size == "large" else 0.07
    return [(side, 0.5 + rng.uniform(-spread, spread), 0.5 + rng.uniform(-spread, spread))]


def _paste(
    canvas: NDArray[np.float32], concept: Concept, place: tuple[float, float, float], rng: random.Random
) -> None:
    side, x, y = place
    picture = icon(concept)
    if concept.may_mirror and rng.random() < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    pixels = max(8, round(side * SIDE))
    picture = picture.resize((pixels, pixels), Image.Resampling.BOX if pixels < 100 else Image.Resampling.BILINEAR)
    picture = picture.rotate(rng.uniform(-14, 14), Image.Resampling.BICUBIC, expand=True)
    left, top = round(x * SIDE - picture.width / 2), round(y * SIDE - picture.height / 2)
    box = (max(0, left), max(0, top), min(SIDE, left + picture.width), min(SIDE, top + picture.height))
    patch = np.asarray(picture, np.float32)[box[1] - top : box[3] - top, box[0] - left : box[2] - left]
    region = canvas[box[1] : box[3], box[0] : box[2]]
    region *= 1 - patch[..., 3:] / 255
    region += patch[..., :3]
