"""Masks: what is white is drawn anew. All of it is counted in pixels of the start picture."""

from __future__ import annotations

import numpy as np
import torch
from craft_protos.generate import Mask
from numpy.typing import NDArray
from PIL import Image, ImageFilter, ImageOps

from craftd.worker.inputs.fitting import Box, Size

_HALF = 128  # from here on diffusers takes a pixel for white

Levels = NDArray[np.uint8]  # height, width


def refined(mask: Image.Image, asked: Mask, size: Size) -> Image.Image:
    """Of the start's size, inverted, grown and blurred as asked."""
    scaled = mask if mask.size == size else mask.resize(size, Image.Resampling.BILINEAR)  # others ring
    turned = ImageOps.invert(scaled) if asked.invert else scaled
    grown = _grown(turned, asked.grow)
    return grown.filter(ImageFilter.GaussianBlur(asked.blur)) if asked.blur else grown


def region(mask: Image.Image, padding: int, size: Size) -> Box | None:
    """What is drawn where only a part is: around all that is not black, in the shape of `size`; None: nothing is.

    It stays within the picture, and keeps that shape where the picture is large enough.
    """
    box = mask.getbbox()
    if box is None:
        return None
    left, right = max(box[0] - padding, 0), min(box[2] + padding, mask.width)
    top, bottom = max(box[1] - padding, 0), min(box[3] + padding, mask.height)
    shape = size[0] / size[1]
    if (right - left) / (bottom - top) > shape:
        top, bottom = _widened(top, bottom, int((right - left) / shape), mask.height)
    else:
        left, right = _widened(left, right, int((bottom - top) * shape), mask.width)
    return left, top, right, bottom


def whites(mask: Levels) -> NDArray[np.bool_]:
    """Where latents are drawn anew: from half a white on, as diffusers has it, or whatever is brightest below that."""
    return mask >= min(_HALF, max(1, int(mask.max())))


def of_latents(mask: Levels, factor: int) -> torch.Tensor:
    """1, 1, height, width: one where any of a latent's pixels is white. diffusers looks at one corner of each alone."""
    height, width = mask.shape
    tiles = whites(mask).reshape(height // factor, factor, width // factor, factor)
    return torch.from_numpy(tiles.any(axis=(1, 3)).astype(np.float32))[None, None]


def _widened(low: int, high: int, wanted: int, most: int) -> tuple[int, int]:
    """An interval of that length around another one, moved until it lies within 0 and `most`."""
    more = max(0, wanted - (high - low))
    low, high = low - more // 2, high + more - more // 2
    if high >= most:
        low, high = low - (high - most), most
    if low < 0:
        low, high = 0, min(high - low, most)
    return low, high


def _grown(mask: Image.Image, by: int) -> Image.Image:
    """By so many pixels to all sides; what is negative shrinks it."""
    if not by:
        return mask
    levels = np.asarray(mask)
    if by < 0:
        return Image.fromarray(255 - _spread(255 - levels, -by))
    return Image.fromarray(_spread(levels, by))


def _spread(levels: Levels, by: int) -> Levels:
    """The brightest of all within so many pixels; the reach doubles with each look."""
    for axis in (0, 1):
        reach = 0
        while reach < min(by, levels.shape[axis]):
            step = min(max(1, reach), by - reach)
            levels = _brighter(levels, step, axis)
            reach += step
    return levels


def _brighter(levels: Levels, step: int, axis: int) -> Levels:
    """Each the brightest of itself and the two that lie `step` to its sides, itself and those reached before."""
    along = np.moveaxis(levels, axis, 0)
    brightest = along.copy()
    np.maximum(brightest[step:], along[:-step], out=brightest[step:])
    np.maximum(brightest[:-step], along[step:], out=brightest[:-step])
    return np.moveaxis(brightest, 0, axis)
