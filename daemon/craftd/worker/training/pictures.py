"""A picture's file -> the pixels of its bucket: upright, without transparency, scaled to cover and cropped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from craft_protos.pixels import eight_bits
from craft_protos.reasons import CraftError
from craft_protos.train_options import RANDOM, TrainOptions
from PIL import Image, ImageEnhance, ImageOps, UnidentifiedImageError

_FORMATS = ("JPEG", "PNG", "WEBP")
_MOST_PIXELS = 200_000_000


@dataclass(frozen=True)
class Look:
    """How a picture is shown this time: where what is too long is cut, and by what its colours are multiplied."""

    centering: tuple[float, float] = (0.5, 0.5)
    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0

    @property
    def enhancements(self) -> Iterator[tuple[Callable[[Image.Image], Any], float]]:
        kinds = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
        factors = (self.brightness, self.contrast, self.saturation)
        return ((kind, factor) for kind, factor in zip(kinds, factors, strict=True) if factor != 1)


PLAIN = Look()


def drawn(recipe: TrainOptions, generator: torch.Generator) -> Look:
    """Draws nothing where every picture is shown as it is."""
    look = PLAIN
    if recipe.crop == RANDOM:
        across, down = torch.rand(2, generator=generator).tolist()
        look = replace(look, centering=(across, down))
    if recipe.color_jitter:
        brightness, contrast, saturation = (
            1 + recipe.color_jitter * (2 * one - 1) for one in torch.rand(3, generator=generator).tolist()
        )
        look = replace(look, brightness=brightness, contrast=contrast, saturation=saturation)
    return look


def load(path: Path, name: str, size: tuple[int, int], *, is_flipped: bool = False, look: Look = PLAIN) -> torch.Tensor:
    """1, 3, height, width in -1 to 1. Raises BAD_DATASET."""
    fitted = _fitted(path, name, size, look, _opaque)
    for kind, factor in look.enhancements:
        fitted = kind(fitted).enhance(factor)
    return (_tensor(fitted, is_flipped) / 127.5 - 1).permute(2, 0, 1)[None]


def load_mask(
    path: Path, name: str, size: tuple[int, int], *, is_flipped: bool = False, look: Look = PLAIN
) -> torch.Tensor:
    """1, 1, height, width in 0 (black: does not count) to 1. Raises BAD_DATASET."""
    return _grey(_fitted(path, name, size, look, lambda image: _opaque(image).convert("L")), is_flipped)


def load_alpha(
    path: Path, name: str, size: tuple[int, int], *, is_flipped: bool = False, look: Look = PLAIN
) -> torch.Tensor:
    """A picture's own: 1 everywhere where it has none. Raises BAD_DATASET."""
    return _grey(_fitted(path, name, size, look, _alpha), is_flipped)


def _grey(image: Image.Image, is_flipped: bool) -> torch.Tensor:
    return (_tensor(image, is_flipped) / 255)[None, None]


def _fitted(
    path: Path, name: str, size: tuple[int, int], look: Look, part: Callable[[Image.Image], Image.Image]
) -> Image.Image:
    try:
        with Image.open(path, formats=_FORMATS) as opened:
            if opened.width * opened.height > _MOST_PIXELS:
                raise _bad(name, f"has {opened.width}x{opened.height} pixels, more than {_MOST_PIXELS}")
            upright = part(ImageOps.exif_transpose(opened))
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, ValueError, SyntaxError) as exc:
        raise _bad(name, f"cannot be read: {exc}".replace(str(path), "the file")) from exc
    return ImageOps.fit(upright, size, Image.Resampling.LANCZOS, centering=look.centering)


def _tensor(image: Image.Image, is_flipped: bool) -> torch.Tensor:
    return torch.from_numpy(np.array(ImageOps.mirror(image) if is_flipped else image, dtype=np.float32))


def _alpha(image: Image.Image) -> Image.Image:
    return eight_bits(image).convert("RGBA").getchannel("A")


def _opaque(image: Image.Image) -> Image.Image:
    """Whatever shines through is white."""
    image = eight_bits(image)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        ground = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(ground, image.convert("RGBA"))
    return image.convert("RGB")


def _bad(name: str, why: str) -> CraftError:
    return CraftError("BAD_DATASET", f"picture {name} {why}", "leave it out, or train with --skip-bad")
