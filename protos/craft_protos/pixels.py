"""Pictures' pixels as eight bits, whatever their file has: Pillow itself cuts what is brighter off."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

_SCALE = 1 / 257  # 65535 -> 255


def eight_bits(picture: Image.Image) -> Image.Image:
    """The same, unless it has 16 bits of grey: those are scaled and rounded, as those of colours are by the decoder."""
    if not picture.mode.startswith("I"):
        return picture
    scaled = picture.convert("I").point(lambda value: value * _SCALE + 0.5)
    grey = scaled.convert("L")
    grey.info = {name: value for name, value in picture.info.items() if name != "transparency"}
    return grey
