"""One picture on its way to a larger size: a tile a step."""

from __future__ import annotations

import math
from collections.abc import Generator, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from craft_protos.provenance import AppliedLora
from PIL import Image

from craftd.worker.inputs.fitting import Size
from craftd.worker.output.picture import Pixels
from craftd.worker.upscaling.network import Network
from craftd.worker.upscaling.tiles import Grid, Mosaic


class Means(Protocol):
    """What pictures are enlarged with; `side` is that of a tile, and may become less."""

    @property
    def network(self) -> Network | None:
        """None: Lanczos alone."""
        ...

    @property
    def side(self) -> int: ...


@dataclass(eq=False)
class Enlarging:
    """A Drawing. Transparency is enlarged by itself, as the network does grey."""

    means: Means
    begins: Pixels  # height, width, 3; or 4, where anything shines through
    size: Size
    step: int = 0
    is_done: bool = False
    scheduler_name: str = ""
    loras: Sequence[AppliedLora] = ()
    _pixels: Pixels | None = None
    _side: int = field(init=False)
    _work: Generator[None, None, None] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._begin()

    @property
    def group(self) -> Hashable:
        return self

    @property
    def cost(self) -> int:
        height, width = self.begins.shape[:2]
        return int(min(self._side, height) * min(self._side, width))

    @property
    def of(self) -> int:
        """Tiles in all."""
        if self.means.network is None:
            return 1
        planes, network = (2 if self.begins.shape[2] > 3 else 1), self.means.network
        sizes = passes((self.begins.shape[1], self.begins.shape[0]), self.size, network.scale)
        return planes * sum(Grid(*size, _side_of(network, self._side, size)).count for size in sizes)

    @property
    def pixels(self) -> Pixels:
        """What it has become, once it is done."""
        assert self._pixels is not None
        return self._pixels

    def advance(self) -> None:
        """A tile more; from the start again, where tiles have become smaller, or one has failed."""
        if self._side != self.means.side:
            self._begin()
        try:
            next(self._work, None)
        except BaseException:
            self._begin()
            raise
        self.step += 1
        self.is_done = self._pixels is not None

    def preview(self) -> bytes:
        return b""

    def finished(self, pixels: Pixels) -> Pixels:
        return pixels

    def close(self) -> None:
        self._work.close()

    def _begin(self) -> None:
        self._side, self.step = self.means.side, 0
        self._work = self._all()
        next(self._work)  # to the pause before the first tile

    def _all(self) -> Generator[None, None, None]:
        """Pauses before each tile; the last one sets the pixels."""
        network = self.means.network
        if network is None:
            yield
            self._pixels = resized(self.begins, self.size)
            return
        made = []
        for plane in _planes(self.begins):
            made.append((yield from self._enlarged(plane, network)))
        self._pixels = made[0] if len(made) == 1 else np.dstack([made[0], made[1][..., :1]])

    def _enlarged(self, pixels: Pixels, network: Network) -> Generator[None, None, Pixels]:
        own = pixels.shape[1], pixels.shape[0]
        for size in passes(own, self.size, network.scale):
            pixels = yield from self._passed(resized(pixels, size), network)
        return resized(pixels, self.size)

    def _passed(self, pixels: Pixels, network: Network) -> Generator[None, None, Pixels]:
        size = pixels.shape[1], pixels.shape[0]
        grid = Grid(*size, _side_of(network, self._side, size))
        mosaic = Mosaic(grid, network.scale, 3)
        for row in grid.rows():
            for tile in row:
                yield
                mosaic.lay(tile, network(pixels[tile.top : tile.bottom, tile.left : tile.right]))
        return mosaic.pixels


def passes(own: Size, size: Size, scale: int) -> list[Size]:
    """The sizes that a network that enlarges `scale` times is given, one after the other, until that size is reached.

    It is given no more than what it makes the size of, but for the first time: then it sees the whole picture.
    """
    given, reached = [own], (own[0] * scale, own[1] * scale)
    while scale > 1 and (reached[0] < size[0] or reached[1] < size[1]):
        least = math.ceil(size[0] / scale), math.ceil(size[1] / scale)
        given.append((min(reached[0], least[0]), min(reached[1], least[1])))
        reached = given[-1][0] * scale, given[-1][1] * scale
    return given


def resized(pixels: Pixels, size: Size) -> Pixels:
    """By Lanczos; to the bit where it has that size already."""
    if (pixels.shape[1], pixels.shape[0]) == size:
        return pixels
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))


def _planes(pixels: Pixels) -> list[Pixels]:
    """The colours; and the transparency as a grey picture."""
    if pixels.shape[2] == 3:
        return [pixels]
    return [np.ascontiguousarray(pixels[..., :3]), np.repeat(pixels[..., 3:], 3, axis=2)]


def _side_of(network: Network, side: int, size: Size) -> int:
    return max(size) if network.is_whole else side
