"""The lines of a picture: Canny's edges, the outlines of areas, and strokes. White on black, of the picture's size."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Pixels = NDArray[np.uint8]  # height, width, 3
Levels = NDArray[np.uint8]  # height, width
_Signed = NDArray[np.int32]  # height, width

CANNY_LOW, CANNY_HIGH = 100, 200  # of a gradient's sum over both axes, as most control models' pictures were made
_TAN_22 = 13573  # tan(22.5 degrees) in 15 bits
_FAINTEST = 24.0  # a gradient below that is none, however smooth the rest of the picture is
_BEGINS, _WHOLE = 0.15, 0.5  # shares of the strongest gradients at which an outline begins, and is all white
_FINE, _COARSE = 0.5, 5.0  # deviations of the Gaussians between which a stroke lies
_STROKE = 16  # levels by which a stroke is darker than what is around it


def canny(pixels: Pixels, low: int = CANNY_LOW, high: int = CANNY_HIGH) -> Levels:
    """Canny (1986): ridges of the gradient above `low` that hang together with one above `high`, one pixel wide.

    To the bit what OpenCV's makes of three channels, with an aperture of 3 and the L1 norm.
    """
    across, down, strength = _gradient(pixels)
    ridge = _is_ridge(across, down, strength) & (strength > low)
    labels = _joined(ridge)
    strong = np.unique(labels[ridge & (strength > high)])
    is_kept = np.zeros(labels.max() + 1, bool)
    is_kept[strong] = True
    is_kept[0] = False
    return np.where(is_kept[labels], np.uint8(255), np.uint8(0))


def _joined(ridge: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The pixels that touch each other, at corners too, have one number; the rest is 0."""
    labels: Any = ndimage.label(ridge, np.ones((3, 3)))
    return np.asarray(labels[0], np.int64)


def edges(pixels: Pixels) -> Levels:
    """The outlines of areas, about three pixels wide: soft where the border between two is."""
    smooth = ndimage.gaussian_filter(pixels.astype(np.float32), (1, 1, 0), mode="nearest")
    strength = np.hypot(_sobel(smooth, 0), _sobel(smooth, 1)).max(axis=2) / 4  # the sum of Sobel's weights
    strongest = max(_FAINTEST, float(np.percentile(strength, 99)))
    share = (strength / strongest - _BEGINS) / (_WHOLE - _BEGINS)
    return _levels(share * 255)


def scribble(pixels: Pixels) -> Levels:
    """Strokes: what is darker than its surroundings (a difference of Gaussians, as Winnemoeller's of 2012 begins)."""
    grey = pixels.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    near, around = (ndimage.gaussian_filter(grey, deviation, mode="nearest") for deviation in (_FINE, _COARSE))
    return np.where(around - near > _STROKE, np.uint8(255), np.uint8(0))


def _gradient(pixels: Pixels) -> tuple[_Signed, _Signed, _Signed]:
    """Sobel's, of that channel in which it is strongest, and the sum over both axes."""
    values = pixels.astype(np.int32)
    across, down = _sobel(values, 1), _sobel(values, 0)
    sums = np.abs(across) + np.abs(down)
    best = sums.argmax(axis=2)[..., None]
    across, down, sums = (np.take_along_axis(some, best, axis=2)[..., 0] for some in (across, down, sums))
    return across, down, sums


def _sobel(values: NDArray[Any], axis: int) -> NDArray[Any]:
    """Along one of a picture's two axes, each channel by itself."""
    differences = ndimage.correlate1d(values, [-1, 0, 1], axis, mode="nearest")
    return np.asarray(ndimage.correlate1d(differences, [1, 2, 1], 1 - axis, mode="nearest"))


def _is_ridge(across: _Signed, down: _Signed, strength: _Signed) -> NDArray[np.bool_]:
    """Whether a pixel is stronger than its neighbours along the gradient, whose direction is one of four."""
    bordered = np.pad(strength, 1)
    height, width = strength.shape

    def beside(rows: int, columns: int) -> _Signed:
        return bordered[1 + rows : 1 + rows + height, 1 + columns : 1 + columns + width]

    run, rise = np.abs(across).astype(np.int64), np.abs(down).astype(np.int64) << 15
    flat = rise < run * _TAN_22
    steep = rise > run * (_TAN_22 + (1 << 16))
    falls = (across ^ down) < 0
    level = (strength > beside(0, -1)) & (strength >= beside(0, 1))
    upright = (strength > beside(-1, 0)) & (strength >= beside(1, 0))
    rising = (strength > beside(-1, -1)) & (strength > beside(1, 1))
    falling = (strength > beside(-1, 1)) & (strength > beside(1, -1))
    return np.where(flat, level, np.where(steep, upright, np.where(falls, falling, rising)))


def _levels(values: NDArray[np.float32]) -> Levels:
    return values.clip(0, 255).astype(np.uint8)
