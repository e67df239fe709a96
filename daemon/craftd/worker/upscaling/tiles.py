"""A picture in tiles that overlap, and the seamless whole of what is made of each.

Near a tile's edge a network misses what lies beyond: there its outermost pixels are left out, and what the two tiles
say of the rest of their overlap goes over into one another. A network that looks no further than what is left out
makes of tiles just what it makes of the whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

OVERLAP = 64  # pixels of a picture that two neighbours share
_LEFT_OUT = 24  # of those, on each side

Numbers = NDArray[np.float32]  # height, width, channels; from 0 to 255


@dataclass(frozen=True)
class Tile:
    """From where to where along both sides, in pixels of the picture."""

    left: int
    top: int
    right: int
    bottom: int


@dataclass(frozen=True)
class Grid:
    """Tiles of one size, `side` at the most, row by row."""

    width: int
    height: int
    side: int

    @property
    def count(self) -> int:
        return len(_starts(self.width, self.side)) * len(_starts(self.height, self.side))

    def rows(self) -> Iterator[list[Tile]]:
        wide, high = min(self.side, self.width), min(self.side, self.height)
        for top in _starts(self.height, self.side):
            yield [Tile(left, top, left + wide, top + high) for left in _starts(self.width, self.side)]


class Mosaic:
    """Puts together what tiles have become, `scale` times as large; they come in their order."""

    def __init__(self, grid: Grid, scale: int, channels: int) -> None:
        self._grid = grid
        self._scale = scale
        self.pixels = np.zeros((grid.height * scale, grid.width * scale, channels), np.uint8)
        self._band: Numbers = np.zeros((0, 0, channels), np.float32)
        self._right = self._bottom = 0  # how far tiles before have come, of this row and of the rows above

    def lay(self, tile: Tile, made: Numbers) -> None:
        """The next tile."""
        if tile.left == 0:
            self._right = 0
            self._band = np.zeros((made.shape[0], self.pixels.shape[1], made.shape[2]), np.float32)
        start, share = self._ramp(tile.left, self._right, made.shape[1])
        place = np.s_[:, tile.left * self._scale + start : tile.right * self._scale]
        self._band[place] += share[None, :, None] * (made[:, start:] - self._band[place])
        self._right = tile.right
        if tile.right == self._grid.width:
            self._finish_row(tile)

    def _finish_row(self, tile: Tile) -> None:
        start, share = self._ramp(tile.top, self._bottom, self._band.shape[0])
        place = np.s_[tile.top * self._scale + start : tile.bottom * self._scale]
        before = self.pixels[place].astype(np.float32)
        mixed = before + share[:, None, None] * (self._band[start:] - before)
        self.pixels[place] = np.rint(np.clip(mixed, 0, 255)).astype(np.uint8)
        self._bottom = tile.bottom

    def _ramp(self, begins: int, reached: int, length: int) -> tuple[int, Numbers]:
        """Where along a side a tile begins to count, and how much from there on, in pixels of what is made."""
        if not reached:
            return 0, np.ones(length, np.float32)
        out = _LEFT_OUT * self._scale
        mixed = max(1, (reached - begins) * self._scale - 2 * out)
        share = np.ones(length - out, np.float32)
        share[:mixed] = (np.arange(mixed, dtype=np.float32) + 0.5) / mixed
        return out, share


def _starts(length: int, side: int) -> list[int]:
    """Where tiles begin along a side, evenly; neighbours share OVERLAP or more."""
    if length <= side:
        return [0]
    count = -(-(length - OVERLAP) // (side - OVERLAP))
    return [round(place * (length - side) / (count - 1)) for place in range(count)]
