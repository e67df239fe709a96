"""Pictures as callers want them: read, put into base64, encoded again; off the event loop."""

from __future__ import annotations

import asyncio
import base64
import io

from craft_protos.formats import FORMATS
from craft_protos.reasons import CraftError
from PIL import ExifTags
from PIL import Image as Pictures

from craftd.images.image import Image
from craftd.images.service import ImageService


async def read(images: ImageService, image: Image) -> bytes:
    """The whole file. Raises UNKNOWN_IMAGE."""
    return b"".join([chunk async for chunk in images.chunks(image)])


async def as_base64(data: bytes) -> str:
    return await asyncio.to_thread(lambda: base64.b64encode(data).decode("ascii"))


async def encode_again(data: bytes, image_format: str, quality: int, provenance: str) -> bytes:
    """A picture of ours as JPEG or WebP of another quality, with its provenance."""
    return await asyncio.to_thread(_encode, data, image_format, quality, provenance)


async def shrunk(data: bytes, side: int, image_id: str, kind: str = "WEBP", quality: int = 80) -> bytes:
    """As small as fits a square of so many pixels; `kind` as Pillow has it. Raises CORRUPT_FILE: disks lose bits."""
    return await asyncio.to_thread(_shrunk, data, side, image_id, kind, quality)


def _shrunk(data: bytes, side: int, image_id: str, kind: str, quality: int) -> bytes:
    stream = io.BytesIO()
    try:
        with Pictures.open(io.BytesIO(data), formats=[one.pillow for one in FORMATS.values()]) as picture:
            picture.thumbnail((side, side))
            picture.convert("RGB").save(stream, kind, quality=quality)
    except (OSError, SyntaxError, ValueError) as exc:
        raise CraftError("CORRUPT_FILE", f"image {image_id}: the file is damaged", "draw it again") from exc
    return stream.getvalue()


def _encode(data: bytes, image_format: str, quality: int, provenance: str) -> bytes:
    exif = Pictures.Exif()
    comment = b"ASCII\0\0\0" + provenance.encode("ascii", "backslashreplace")
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = comment
    stream = io.BytesIO()
    with Pictures.open(io.BytesIO(data), formats=[one.pillow for one in FORMATS.values()]) as picture:
        picture.convert("RGB").save(stream, FORMATS[image_format].pillow, quality=quality, exif=exif)
    return stream.getvalue()
