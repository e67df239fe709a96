"""What control models would be shown of a picture, as a PNG."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from craft_protos.pixels import eight_bits
from PIL import Image, ImageOps

from craftd.worker.inputs import maps

_FORMATS = ("JPEG", "PNG", "WEBP")


def made(path: Path, kind: str) -> bytes:
    """Of a picture that was found good, upright. Raises KeyError for a kind that is not known."""
    Image.MAX_IMAGE_PIXELS = None  # its size has been looked at
    stream = io.BytesIO()
    with path.open("rb") as file, Image.open(file, formats=_FORMATS) as picture:
        clear = eight_bits(ImageOps.exif_transpose(picture)).convert("RGBA")
        ground = Image.alpha_composite(Image.new("RGBA", clear.size, maps.ground_of(kind)), clear)
        shown = maps.made_of(kind, np.asarray(ground.convert("RGB")))
        Image.fromarray(shown).save(stream, "PNG", compress_level=1)
    return stream.getvalue()
