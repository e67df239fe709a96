"""A picture's file -> the pixels of its bucket: upright, without transparency, scaled to cover and cropped evenly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from craft_protos.pixels import eight_bits
from craft_protos.reasons import CraftError
from PIL import Image, ImageOps, UnidentifiedImageError

_FORMATS = ("JPEG", "PNG", "WEBP")
_MOST_PIXELS = 200_000_000


def load(path: Path, name: str, size: tuple[int, int], *, is_flipped: bool = False) -> torch.Tensor:
    """1, 3, height, width in -1 to 1. Raises BAD_DATASET."""
    try:
        with Image.open(path, formats=_FORMATS) as opened:
            if opened.width * opened.height > _MOST_PIXELS:
                raise _bad(name, f"has {opened.width}x{opened.height} pixels, more than {_MOST_PIXELS}")
            upright = _opaque(ImageOps.exif_transpose(opened))
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, ValueError, SyntaxError) as exc:
        raise _bad(name, f"cannot be read: {exc}".replace(str(path), "the file")) from exc
    fitted = ImageOps.fit(upright, size, Image.Resampling.LANCZOS)
    if is_flipped:
        fitted = ImageOps.mirror(fitted)
    pixels = torch.from_numpy(np.array(fitted, dtype=np.float32))
    return (pixels / 127.5 - 1).permute(2, 0, 1)[None]


def _opaque(image: Image.Image) -> Image.Image:
    """Whatever shines through is white."""
    image = eight_bits(image)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        ground = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(ground, image.convert("RGBA"))
    return image.convert("RGB")


def _bad(name: str, why: str) -> CraftError:
    return CraftError("BAD_DATASET", f"picture {name} {why}", "leave it out, or train with --skip-bad")
