"""Pictures that callers send: measured before they are decoded, and read in a thread."""

from __future__ import annotations

import asyncio
import base64
import binascii
import io
import struct
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

from craft_protos import infotexts
from craft_protos.formats import CHOICE, FORMATS
from craft_protos.reasons import CraftError
from PIL import ExifTags, UnidentifiedImageError
from PIL import Image as Pictures

_MOST_PIXELS = 4096 * 4096
_LONGEST_TEXT = 100_000
_LONGEST_PREFIX = 200  # of a data URL
_PIECE_CHARS = 256 << 10
_AT_ONCE = 2  # decoded ones are large
_DAMAGED = (
    *(OSError, SyntaxError, ValueError, TypeError, EOFError, LookupError, OverflowError, MemoryError),
    struct.error,
)
_ROOM = asyncio.Semaphore(_AT_ONCE)


@dataclass(frozen=True)
class Notes:
    """What a picture's file says in words."""

    texts: Mapping[str, str]  # PNG's text chunks
    comment: str  # EXIF's UserComment


async def notes_of(field: str, encoded: str) -> Notes:
    """Of a picture in base64, or a data URL of it. Raises BAD_DATA naming the field."""
    async with _ROOM:
        return await asyncio.to_thread(_read, field, encoded)


def _read(field: str, encoded: str) -> Notes:
    data = decoded(field, encoded)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the size is checked here
            with Pictures.open(io.BytesIO(data), formats=[one.pillow for one in FORMATS.values()]) as picture:
                _check_size(field, picture)
                picture.load()
                return Notes(_texts(picture), _comment(picture))
    except CraftError:
        raise
    except UnidentifiedImageError as exc:
        raise _bad(field, f"is no {CHOICE} picture") from exc
    except _DAMAGED as exc:
        # what Pillow raises for damaged files; its texts name objects by their addresses
        raise _bad(field, "is a damaged or truncated picture") from exc
    except Pictures.DecompressionBombError as exc:
        raise _bad(field, "is larger than a picture may be") from exc


def decoded(field: str, encoded: str) -> bytes:
    """In lines or in one, padded or not: MIME's, JavaScript's and Python's writers differ. Raises BAD_DATA.

    Blocking, a piece at a time, so that other threads have their turn.
    """
    if encoded.startswith(("http://", "https://")):
        message = f"{field}: is an address, and craft fetches nothing"
        raise CraftError("BAD_DATA", message, "send the picture itself: a file of a form, or base64", field=field)
    start = encoded.find(",", 0, _LONGEST_PREFIX) + 1 if encoded.startswith("data:") else 0
    pieces, left = list[bytes](), ""
    for at in range(start, len(encoded), _PIECE_CHARS):
        # mail's lines have 76 characters; many leave the padding out
        left += "".join(encoded[at : at + _PIECE_CHARS].split())
        if at + _PIECE_CHARS >= len(encoded):
            left = left.rstrip("=")
            left += "=" * (-len(left) % 4)
        whole = len(left) - len(left) % 4
        pieces.append(_decoded_piece(field, left[:whole]))
        left = left[whole:]
    return b"".join(pieces)


def _decoded_piece(field: str, text: str) -> bytes:
    try:
        return base64.b64decode(text, altchars=b"-_" if set("-_") & set(text) else None, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise _bad(field, "is no base64") from exc


def _check_size(field: str, picture: Pictures.Image) -> None:
    if picture.width * picture.height > _MOST_PIXELS:
        raise _bad(field, f"has {picture.width}x{picture.height} pixels; the limit is {_MOST_PIXELS}")


def _texts(picture: Pictures.Image) -> dict[str, str]:
    texts: dict[str, str] = getattr(picture, "text", {})
    return {str(name)[:100]: str(text)[:_LONGEST_TEXT] for name, text in list(texts.items())[:20]}


def _comment(picture: Pictures.Image) -> str:
    raw = picture.getexif().get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment, b"")
    if not isinstance(raw, bytes):
        return str(raw)[:_LONGEST_TEXT]
    return infotexts.comment(raw[: 2 * _LONGEST_TEXT])[:_LONGEST_TEXT]


def _bad(field: str, why: str) -> CraftError:
    return CraftError("BAD_DATA", f"{field}: {why}", "send a whole picture in base64", field=field)
