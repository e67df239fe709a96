"""A picture's file -> its pixels: upright, eight bits, sRGB. Strangers sent it, though an inspecting process saw it.

A start keeps its transparency. A mask is one number a pixel, how bright it is where nothing shines through:
what is transparent counts as black, so that strokes on a clear ground are read as they are seen.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from craft_protos.dispatch import File
from craft_protos.pixels import eight_bits
from craft_protos.reasons import CraftError
from PIL import Image, ImageChops, ImageCms, ImageOps, UnidentifiedImageError

from craftd.worker.models import memory
from craftd.worker.models.folder import is_sha256

_FORMATS = ("JPEG", "PNG", "WEBP")
_MOST_PIXELS = 64_000_000
_DAMAGED = (OSError, ValueError, SyntaxError, EOFError, ArithmeticError, LookupError, TypeError)


def read_start(files: Path, input_: File) -> tuple[Image.Image, list[str]]:
    """RGB, or RGBA where anything shines through; and what was left out. Raises UNKNOWN_INPUT, BAD_INPUT."""
    with _opened(files, input_) as picture:
        upright, remarks = _in_srgb(_upright(picture))
        if not _has_alpha(upright):
            return (upright if upright.mode == "RGB" else upright.convert("RGB")), remarks
        clear = upright.convert("RGBA")
        is_opaque = clear.getchannel("A").getextrema() == (255, 255)
        return (clear.convert("RGB") if is_opaque else clear), remarks


def read_mask(files: Path, input_: File) -> Image.Image:
    """L. Raises UNKNOWN_INPUT, BAD_INPUT."""
    with _opened(files, input_) as picture:
        upright = _upright(picture)
        if not _has_alpha(upright):
            return upright.convert("RGB").convert("L")
        clear = upright.convert("RGBA")
        return ImageChops.multiply(clear.convert("RGB").convert("L"), clear.getchannel("A"))


@contextmanager
def _opened(files: Path, input_: File) -> Iterator[Image.Image]:
    """Every failure while it holds is the picture's."""
    data = _bytes(files, input_)
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as picture:
            if picture.width * picture.height > _MOST_PIXELS:
                limit = f"the limit is {_MOST_PIXELS // 1_000_000} megapixels"
                raise _bad(input_, f"has {picture.width}x{picture.height} pixels; {limit}", "send a smaller one")
            if picture.format in ("PNG", "WEBP") and getattr(picture, "n_frames", 1) > 1:
                raise _bad(input_, "is an animation", "send one of its frames")
            yield picture
    except UnidentifiedImageError:
        raise _bad(input_, "is no JPEG, PNG or WebP picture", "convert it, and send that") from None
    except Image.DecompressionBombError:
        raise _bad(input_, "has more pixels than any picture", "send a smaller one") from None
    except MemoryError:
        raise memory.too_little(f"reading the picture {_name(input_)}") from None
    except _DAMAGED as exc:
        why = (str(exc).splitlines() or [type(exc).__name__])[0][:100]
        raise _bad(input_, f"cannot be decoded ({why})", "save it again with another program, and send that") from exc


def _bytes(files: Path, input_: File) -> bytes:
    """Raises UNKNOWN_INPUT where the store has it no longer, or has something else in its place."""
    if not is_sha256(input_.sha256):
        raise CraftError("UNKNOWN_INPUT", f"{input_.sha256[:70]!r} is no picture's sha256", "send the picture again")
    try:
        data = (files / input_.sha256).read_bytes()
    except OSError as exc:
        raise _unknown(input_, "is not there any more") from exc
    if hashlib.sha256(data).hexdigest() != input_.sha256:
        raise _unknown(input_, "is not what was sent: its file was changed")
    return data


def _upright(picture: Image.Image) -> Image.Image:
    """Turned in place, so that a large one is not copied."""
    ImageOps.exif_transpose(picture, in_place=True)
    return eight_bits(picture)


def _has_alpha(picture: Image.Image) -> bool:
    return picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info


def _in_srgb(picture: Image.Image) -> tuple[Image.Image, list[str]]:
    """By its colour profile, where it has one; pixels of sRGB stay to the bit."""
    profile = picture.info.get("icc_profile")
    if not profile:
        return picture, []
    try:
        own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "srgb" in ImageCms.getProfileDescription(own).lower():
            return picture, []
        return _converted(picture, own), []
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return picture, ["its start picture's colour profile is damaged: the colours are taken as sRGB"]


def _converted(picture: Image.Image, own: ImageCms.ImageCmsProfile) -> Image.Image:
    alpha = picture.convert("RGBA").getchannel("A") if _has_alpha(picture) else None
    grey = picture.mode in ("L", "LA", "1")
    colours = picture if picture.mode == "CMYK" else picture.convert("L" if grey else "RGB")
    converted = ImageCms.profileToProfile(colours, own, ImageCms.createProfile("sRGB"), outputMode="RGB")
    assert converted is not None  # it was not converted in place
    if alpha is not None:
        converted.putalpha(alpha)
    return converted


def _name(input_: File) -> str:
    return input_.name or input_.sha256[:12]


def _bad(input_: File, why: str, hint: str) -> CraftError:
    return CraftError("BAD_INPUT", f"the picture {_name(input_)} {why}", hint)


def _unknown(input_: File, why: str) -> CraftError:
    return CraftError("UNKNOWN_INPUT", f"the picture {_name(input_)} {why}", "send the picture again")
