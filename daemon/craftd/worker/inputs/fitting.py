"""How a picture comes to another size or shape than its own, as diffusers' VaeImageProcessor does it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

Size = tuple[int, int]  # width, height
Box = tuple[int, int, int, int]  # left, top, right, bottom


@dataclass(frozen=True)
class Placement:
    """A picture scaled to `scaled` and laid onto a canvas of `size`, with its corner there; the rest is its edges."""

    scaled: Size
    size: Size
    left: int = 0
    top: int = 0

    @property
    def box(self) -> Box:
        """Where the canvas shows it."""
        width, height = self.size
        right, bottom = self.left + self.scaled[0], self.top + self.scaled[1]
        return max(0, self.left), max(0, self.top), min(width, right), min(height, bottom)

    def laid(self, picture: Image.Image, resample: Image.Resampling = Image.Resampling.LANCZOS) -> Image.Image:
        """To the bit where it has the size already."""
        scaled = picture if picture.size == self.scaled else picture.resize(self.scaled, resample)
        if (self.left, self.top, *self.scaled) == (0, 0, *self.size):
            return scaled
        left, top, right, bottom = self.box
        shown = scaled.crop((left - self.left, top - self.top, right - self.left, bottom - self.top))
        return edged(shown, (left, top, self.size[0] - right, self.size[1] - bottom))


def place(own: Size, size: Size, fit: str) -> Placement:
    """Where a picture of `own` size lies on a canvas of that `size`; `fit` is one of the schema's FITS."""
    if fit == "stretch" or own == size:
        return Placement(size, size)
    is_wider = size[0] * own[1] > size[1] * own[0]
    follows_width = is_wider if fit == "crop" else not is_wider
    if follows_width:
        scaled = size[0], max(1, own[1] * size[0] // own[0])
    else:
        scaled = max(1, own[0] * size[1] // own[1]), size[1]
    return Placement(scaled, size, size[0] // 2 - scaled[0] // 2, size[1] // 2 - scaled[1] // 2)


def middle(scaled: Size, unit: int) -> Placement:
    """Of a picture that is scaled so, as much as whole units hold; one that is less than a unit is drawn out."""
    width, height = (max(unit, side // unit * unit) for side in scaled)
    return Placement(scaled, (width, height), -((scaled[0] - width) // 2), -((scaled[1] - height) // 2))


def edged(picture: Image.Image, margins: Box) -> Image.Image:
    """With so many pixels more on the left, above, on the right and below, which repeat its edges."""
    if not any(margins):
        return picture
    left, top, right, bottom = margins
    pixels = np.asarray(picture)
    around = ((top, bottom), (left, right), *(((0, 0),) if pixels.ndim == 3 else ()))
    return Image.fromarray(np.pad(pixels, around, mode="edge"))


def rounded_up(size: Size, granularity: int) -> Size:
    """The least size that a model draws and that one lies in."""
    width, height = (-(-side // granularity) * granularity for side in size)
    return width, height
