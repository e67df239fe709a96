"""Pixels -> the bytes of an image file that carries its provenance.

PNG: text chunks `craft` (JSON) and `parameters` (AUTOMATIC1111's form). JPEG and WebP: the JSON as
EXIF UserComment. PNG is packed with runs alone, which for pictures takes two thirds of level 4's time and fewer bytes;
JPEG is written at quality 95; WebP without loss, so that verifying it can be exact, what is transparent too.
"""

from __future__ import annotations

import io
import zlib

import numpy as np
from craft_protos.reasons import CraftError
from numpy.typing import NDArray
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

Pixels = NDArray[np.uint8]  # height, width, 3; or 4, where something shines through

_MOST_JPEG_EXIF_BYTES = 65_000  # one APP1 segment
_PREVIEW_SIDE = 256


def encode(pixels: Pixels, kind: str, provenance: str, parameters: str) -> bytes:
    """A whole file of `kind` png, jpeg or webp."""
    image, out = Image.fromarray(pixels), io.BytesIO()
    if kind == "png":
        image.save(out, "PNG", pnginfo=_chunks(provenance, parameters), compress_type=zlib.Z_RLE)
    elif kind == "jpeg":
        _opaque(image).save(out, "JPEG", quality=95, subsampling=0, exif=_exif(provenance, _MOST_JPEG_EXIF_BYTES))
    else:
        image.save(out, "WEBP", lossless=True, exact=True, quality=50, method=3, exif=_exif(provenance))
    return out.getvalue()


def encode_preview(pixels: Pixels) -> bytes:
    """A small JPEG without provenance."""
    image, out = Image.fromarray(pixels), io.BytesIO()
    image.thumbnail((_PREVIEW_SIDE, _PREVIEW_SIDE))
    image.save(out, "JPEG", quality=75)
    return out.getvalue()


def _opaque(image: Image.Image) -> Image.Image:
    """Over white, as models see it."""
    if image.mode != "RGBA":
        return image
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def _chunks(provenance: str, parameters: str) -> PngInfo:
    info = PngInfo()
    info.add_text("craft", provenance)
    info.add_text("parameters", parameters)
    return info


def _exif(provenance: str, limit: int | None = None) -> bytes:
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = b"ASCII\0\0\0" + provenance.encode("ascii")
    data = exif.tobytes()
    if limit is not None and len(data) > limit:
        raise CraftError("BAD_DATA", "the prompt is too long for a JPEG's metadata", "use --format png or webp")
    return data
