"""Pictures to train on, or to draw from: can they be decoded, and how large are they upright?"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

from craft_protos.pixels import eight_bits
from PIL import Image, UnidentifiedImageError

_FORMATS = ("JPEG", "PNG", "WEBP")
_MEDIA_TYPES = {"PNG": "image/png", "WEBP": "image/webp"}  # others are a JPEG, or several: the first counts
_MOST_PIXELS = 64_000_000
_ORIENTATION = 0x0112
_SIDEWAYS = (5, 6, 7, 8)
_WITH_ALPHA = ("RGBA", "LA", "PA", "La", "RGBa")


def check(paths: Iterable[Path], *, are_compared: bool) -> Iterator[dict[str, object]]:
    """For each, in its order, what it is or why it cannot be used."""
    warnings.simplefilter("ignore")  # of odd metadata, which is none of ours
    Image.MAX_IMAGE_PIXELS = None  # the limit is ours
    for path in paths:
        try:
            yield _examined(path, is_compared=are_compared)
        except MemoryError:
            yield {"why": "decoding it takes too much memory"}
        except UnidentifiedImageError:
            yield {"why": "is no JPEG, PNG or WebP picture"}
        except (OSError, ValueError, SyntaxError, EOFError, ArithmeticError, LookupError, TypeError) as exc:
            # what Pillow's decoders raise for damaged files
            yield {"why": f"cannot be decoded ({_first_line(exc)})"}


def _examined(path: Path, *, is_compared: bool) -> dict[str, object]:
    with path.open("rb") as file, Image.open(file, formats=_FORMATS) as picture:
        width, height = picture.size
        if width * height > _MOST_PIXELS:
            return {"why": f"has {width}x{height} pixels; the limit is {_MOST_PIXELS // 1_000_000} megapixels"}
        if picture.format in ("PNG", "WEBP") and getattr(picture, "n_frames", 1) > 1:
            return {"why": "is an animation"}
        picture.load()
        if picture.getexif().get(_ORIENTATION) in _SIDEWAYS:
            width, height = height, width
        return {
            "width": width,
            "height": height,
            "pixels": _digest(picture) if is_compared else "",
            "media_type": _MEDIA_TYPES.get(picture.format or "", "image/jpeg"),
            "has_alpha": picture.mode in _WITH_ALPHA or "transparency" in picture.info,
        }


def _digest(picture: Image.Image) -> str:
    """Equal for equal pixels, however they are packed."""
    digest = hashlib.sha256(repr((picture.size, picture.getexif().get(_ORIENTATION))).encode())
    digest.update(eight_bits(picture).convert("RGBA").tobytes())
    return digest.hexdigest()


def _first_line(exc: Exception) -> str:
    """Without the file's path, which is none of the sender's business."""
    text = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
    return (text.splitlines() or [type(exc).__name__])[0][:100]
