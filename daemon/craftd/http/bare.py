"""A picture's file without what it was made from: its pixels' bytes as they are, its words left out.

PNG (RFC 2083), JPEG (ITU T.81) and WebP (RFC 9649) are rows of parts with a name and a length, so nothing is encoded
again.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from craft_protos.reasons import CraftError

_PNG_HEAD = 8
# What changes how the pixels look; all else is words, times and thumbnails.
_PNG_KEPT = {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"sRGB", b"gAMA", b"cHRM", b"iCCP", b"sBIT", b"pHYs"}
_APP2, _APP14 = 0xE2, 0xEE  # a colour profile; how the colours were transformed
_START_OF_SCAN, _COMMENT = 0xDA, 0xFE
_WEBP_WORDS = {b"EXIF", b"XMP "}
_WEBP_HAS_WORDS = 0x08 | 0x04  # flags of its extended header


def bare(data: bytes, media_type: str) -> bytes:
    """Raises CORRUPT_FILE: a disk may lose bits."""
    strip = {"image/png": _png, "image/jpeg": _jpeg, "image/webp": _webp}.get(media_type)
    try:
        if strip is not None:
            return b"".join(strip(data))
    except (struct.error, IndexError) as exc:
        raise CraftError("CORRUPT_FILE", "the picture's file is damaged", "draw it again") from exc
    raise CraftError("CORRUPT_FILE", f"{media_type}: not a kind of picture that craft makes", "draw it again")


def _png(data: bytes) -> Iterator[bytes]:
    yield data[:_PNG_HEAD]
    place = _PNG_HEAD
    while place < len(data):
        length, name = struct.unpack_from(">I4s", data, place)
        end = _within(data, place + 12 + length)
        if name in _PNG_KEPT:
            yield data[place:end]
        place = end


def _jpeg(data: bytes) -> Iterator[bytes]:
    yield data[:2]
    place = 2
    while True:
        marker, length = struct.unpack_from(">xBH", data, place)
        if marker == _START_OF_SCAN:
            yield data[place:]
            return
        end = _within(data, place + 2 + length)
        if not (0xE1 <= marker <= 0xEF and marker not in (_APP2, _APP14)) and marker != _COMMENT:
            yield data[place:end]
        place = end


def _webp(data: bytes) -> Iterator[bytes]:
    kept = list(_webp_parts(data))
    yield data[:4] + struct.pack("<I", 4 + sum(map(len, kept))) + data[8:12]
    yield from kept


def _webp_parts(data: bytes) -> Iterator[bytes]:
    place = 12
    while place < len(data):
        name, length = struct.unpack_from("<4sI", data, place)
        end = _within(data, place + 8 + length + length % 2)
        part = data[place:end]
        if name == b"VP8X":
            part = part[:8] + bytes([part[8] & ~_WEBP_HAS_WORDS]) + part[9:]
        if name not in _WEBP_WORDS:
            yield part
        place = end


def _within(data: bytes, end: int) -> int:
    if end > len(data):
        raise IndexError("a part is longer than what is left of the file")
    return end
