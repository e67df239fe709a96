"""What some programs hide in the lowest bits of a picture's alpha, so that it outlives the loss of a PNG's chunks.

Column by column: a signature, a length in bits, and the text, gzipped or not. NovelAI hides its chunks as one JSON
object, AUTOMATIC1111's extension its infotext.
"""

from __future__ import annotations

import io
import zlib
from typing import TYPE_CHECKING

from craft_protos.recipes.told import json_of

if TYPE_CHECKING:
    from PIL import Image

_PACKED, _PLAIN = b"stealth_pngcomp", b"stealth_pnginfo"
_LENGTH_BYTES = 4
_HEAD_BITS = 8 * (len(_PLAIN) + _LENGTH_BYTES)
_MOST_BYTES = 1 << 20
_MOST_PIXELS = 64_000_000
_LOWEST_BITS = bytes(ord("0") + value % 2 for value in range(256))
_GZIP = 31  # zlib's word for it


def texts_of(data: bytes) -> dict[str, str]:
    """Texts by the names that their chunks would have; empty where nothing is hidden."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data), formats=["PNG", "WEBP"]) as picture:
            if picture.mode != "RGBA" or not _HEAD_BITS < picture.width * picture.height <= _MOST_PIXELS:
                return {}
            text = _hidden(picture)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return {}
    fields = json_of(text)
    if fields is None:
        return {"parameters": text} if text else {}
    return {name: value for name, value in fields.items() if isinstance(value, str)}


def _hidden(picture: Image.Image) -> str:
    from PIL.Image import Transpose

    bits = picture.getchannel("A").transpose(Transpose.TRANSPOSE).tobytes()
    head = _bytes(bits[:_HEAD_BITS])
    if not head.startswith((_PACKED, _PLAIN)):
        return ""
    count = int.from_bytes(head[-_LENGTH_BYTES:], "big") // 8
    if count > min(_MOST_BYTES, (len(bits) - _HEAD_BITS) // 8):
        return ""
    body = _bytes(bits[_HEAD_BITS : _HEAD_BITS + 8 * count])
    return (_unpacked(body) if head.startswith(_PACKED) else body).decode("utf-8", "replace")


def _bytes(bits: bytes) -> bytes:
    """Of each eight the lowest bits, the first one the highest."""
    return int(bits.translate(_LOWEST_BITS) or b"0", 2).to_bytes(len(bits) // 8, "big")


def _unpacked(body: bytes) -> bytes:
    try:
        return zlib.decompressobj(_GZIP).decompress(body, _MOST_BYTES)
    except zlib.error:
        return b""
