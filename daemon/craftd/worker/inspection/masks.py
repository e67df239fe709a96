"""Masks as other programs mean them, made craft's own: white is drawn anew, black stays."""

from __future__ import annotations

import io
from pathlib import Path

from craft_protos.pixels import eight_bits
from PIL import Image, ImageChops, ImageOps

_FORMATS = ("JPEG", "PNG", "WEBP")
_HALF = 128  # A1111 takes what is more opaque than this for white


def converted(path: Path, meaning: str) -> bytes:
    """A picture that was found good, as a grey PNG, upright. Raises KeyError for a meaning that is not known."""
    meant = _MEANINGS[meaning]
    Image.MAX_IMAGE_PIXELS = None  # its size has been looked at
    stream = io.BytesIO()
    with path.open("rb") as file, Image.open(file, formats=_FORMATS) as picture:
        meant(ImageOps.exif_transpose(picture)).save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def _of_transparent(picture: Image.Image) -> Image.Image:
    """OpenAI's: what is transparent is drawn anew, what is half so by half."""
    return ImageChops.invert(_alpha(picture))


def _of_opaque_or_white(picture: Image.Image) -> Image.Image:
    """A1111's: where anything is transparent, what is opaque is drawn anew, wholly or not; else what is white."""
    alpha = _alpha(picture)
    if alpha.getextrema() == (255, 255):
        return eight_bits(picture).convert("L")
    return alpha.point([255 * (value > _HALF) for value in range(256)])


def _alpha(picture: Image.Image) -> Image.Image:
    return eight_bits(picture).convert("RGBA").getchannel("A")


_MEANINGS = {"transparent": _of_transparent, "opaque-or-white": _of_opaque_or_white}
