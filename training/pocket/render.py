"""Scenes to pixels: the icons, placed on a grid, or freely.

On the grid, what pocket draws is learned from: three sizes, upright, moved by whole
cells of 32 pixels, so that one icon's latents are one pattern at several places.
Freely (placed anywhere, sized, tilted, sometimes mirrored) the autoencoder and the
judge see it.
"""

from __future__ import annotations

import io
import random
from functools import cache
from itertools import product

import numpy as np
import resvg_py
from numpy.typing import NDArray
from PIL import Image

from training.pocket.concepts import COLORS, Concept, Scene

SIDE = 256
_RASTER_SIDE = 288
_BACKGROUND_JITTER = 8
_CELL = 32
_GRID_SIDES = {"small": 112, "large": 224, None: 176}

Pixels = NDArray[np.uint8]
Cells = tuple[tuple[int, int, int], ...]


@cache
def icon(concept: Concept) -> Image.Image:
    """The concept's picture, RGBA with premultiplied alpha, 288x288."""
    return _raster(concept, _RASTER_SIDE)


def render(scene: Scene, rng: random.Random, scale: int = 1) -> Pixels:
    """One free view of the scene, uint8 (256, 256, 3) times `scale`; `rng` decides placement, size and tilt."""
    whole = SIDE * scale
    canvas = np.empty((whole, whole, 3), np.float32)
    canvas[:] = _background(scene.background, rng)
    for concept, (side, x, y) in zip(scene.concepts, _layout(scene, rng), strict=True):
        picture = icon(concept) if scale == 1 else _raster(concept, _RASTER_SIDE * scale)
        if concept.may_mirror and rng.random() < 0.5:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        picture = _resized(picture, max(8, round(side * whole)))
        picture = picture.rotate(rng.uniform(-14, 14), Image.Resampling.BICUBIC, expand=True)
        _paste(canvas, picture, round(x * whole - picture.width / 2), round(y * whole - picture.height / 2))
    return canvas.round().clip(0, 255).astype(np.uint8)


def render_on_grid(scene: Scene, rng: random.Random) -> Pixels:
    """One view of the scene on the grid, uint8 (256, 256, 3); `rng` decides the cells."""
    return _on_grid(scene, rng.choice(_placements(scene)))


def grid_views(scene: Scene) -> list[Pixels]:
    """Every view of the scene that the grid has."""
    return [_on_grid(scene, cells) for cells in _placements(scene)]


def _raster(concept: Concept, side: int) -> Image.Image:
    png = resvg_py.svg_to_bytes(svg_string=concept.icon_path.read_text(encoding="utf-8"), width=side, height=side)
    return Image.open(io.BytesIO(bytes(png))).convert("RGBa")


def _on_grid(scene: Scene, cells: Cells) -> Pixels:
    canvas = np.empty((SIDE, SIDE, 3), np.float32)
    canvas[:] = COLORS[scene.background]
    for concept, (side, x, y) in zip(scene.concepts, cells, strict=True):
        _paste(canvas, _resized(icon(concept), side), x - side // 2, y - side // 2)
    return canvas.round().clip(0, 255).astype(np.uint8)


def _placements(scene: Scene) -> list[Cells]:
    """Every choice of cells: for each concept (side, centre x, centre y), in pixels."""
    middle, quarter = SIDE // 2, SIDE // 4
    near = [middle - _CELL, middle, middle + _CELL]
    side = _GRID_SIDES[scene.size]
    if len(scene.concepts) == 2:
        small = _GRID_SIDES["small"]
        return [((small, quarter, y), (small, 3 * quarter, z)) for y, z in product(near, near)]
    if scene.place in ("left", "right"):
        x = quarter if scene.place == "left" else 3 * quarter
        return [((_GRID_SIDES["small"], x, y),) for y in near]
    if scene.place == "center":
        return [((side, middle, middle),)]
    if scene.size == "large":
        near = [middle - _CELL // 2, middle + _CELL // 2]
    return [((side, x, y),) for x, y in product(near, near)]


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


def _resized(picture: Image.Image, side: int) -> Image.Image:
    return picture.resize((side, side), Image.Resampling.BOX if side < 100 else Image.Resampling.BILINEAR)


def _paste(canvas: NDArray[np.float32], picture: Image.Image, left: int, top: int) -> None:
    right, bottom = min(canvas.shape[1], left + picture.width), min(canvas.shape[0], top + picture.height)
    box = (max(0, left), max(0, top), right, bottom)
    patch = np.asarray(picture, np.float32)[box[1] - top : box[3] - top, box[0] - left : box[2] - left]
    region = canvas[box[1] : box[3], box[0] : box[2]]
    region *= 1 - patch[..., 3:] / 255
    region += patch[..., :3]
