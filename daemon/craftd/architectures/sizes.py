"""Which sizes of a picture a model can draw, from the configurations of its parts alone.

The front reads them from the model's folder before a job is queued, the worker from the loaded pipeline: both ask here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeGuard

Configurations = Mapping[str, Mapping[str, Any]]  # by the part's name: "vae", "unet", "transformer"

PARTS = ("vae", "vqvae", "vqgan", "movq", "unet", "transformer")  # whose configurations are needed
_LEAST = 8  # diffusers' pipelines take multiples of this even where their model would take others
_USUAL_FACTOR = 8
_UNLIMITED = 1 << 16
_LEAST_OF_ONE_LATENT = 32
_OF_ONE_LATENT = ("Sana",)  # transformers whose tokens are single latents; others with `patch_size` 1 pack two by two
_BY_WORDS = ("GlmImage",)  # transformers told by a language model what a square of two by two of their tokens shows
_INEXACT_UPSAMPLING = ("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D")  # give twice what they get, never one less


@dataclass(frozen=True)
class Sizes:
    """In pixels: each side is a multiple of `granularity` up to `largest_side`."""

    granularity: int
    largest_side: int = _UNLIMITED
    most_pixels: int = _UNLIMITED**2

    @property
    def is_limited(self) -> bool:
        """Whether the model itself ends somewhere."""
        return self.largest_side < _UNLIMITED

    def within(self, largest_side: int, most_pixels: int) -> Sizes:
        """Those of them that are no larger than that."""
        largest, most = min(self.largest_side, largest_side), min(self.most_pixels, most_pixels)
        return replace(self, largest_side=largest, most_pixels=most)

    def allows(self, width: int, height: int) -> bool:
        return (
            all(0 < side <= self.largest_side and side % self.granularity == 0 for side in (width, height))
            and width * height <= self.most_pixels
        )

    def nearest(self, width: float, height: float) -> tuple[int, int]:
        """The allowed size that is nearest to that one's shape and pixels."""
        width, height = (min(max(side, 1), _UNLIMITED) for side in (width, height))
        shrink = max(1.0, math.sqrt(width * height / self.most_pixels))
        for whole in (round, math.floor):
            sides = self._side(width / shrink, whole), self._side(height / shrink, whole)
            if sides[0] * sides[1] <= self.most_pixels:
                return sides
        short = min(sides)  # as short as it can be
        long = self._side(self.most_pixels / short, math.floor)
        return (long, short) if width > height else (short, long)

    def nearest_side(self, side: float) -> int:
        return self._side(side, round)

    def _side(self, side: float, whole: Callable[[float], int]) -> int:
        most = max(1, self.largest_side // self.granularity)
        return min(max(1, whole(side / self.granularity)), most) * self.granularity


def in_shape(width: int, height: int, pixels: int, unit: int) -> tuple[int, int]:
    """About so many pixels in the shape of a picture, as pipelines that edit count them; sides are whole units."""
    wide = math.sqrt(pixels * width / height)
    high = wide / (width / height)
    return max(1, round(wide / unit)) * unit, max(1, round(high / unit)) * unit


def sizes(configurations: Configurations) -> Sizes:
    """Of a model whose parts are configured so; parts that it lacks may be missing."""
    unet, transformer = configurations.get("unet", {}), configurations.get("transformer", {})
    unit = vae_factor(configurations) * (_token_side(transformer) if transformer else _unet_factor(unit_of=unet))
    least = _LEAST_OF_ONE_LATENT if _is_of_one_latent(transformer) else _LEAST
    side, most = min(_UNLIMITED, _most_tokens(transformer) * unit), _most_latents(transformer)
    return Sizes(max(least, unit), side, min(_UNLIMITED**2, most * vae_factor(configurations) ** 2))


def vae_factor(configurations: Configurations) -> int:
    """Pixels along the side of one latent; 1 for a model that draws pixels themselves."""
    found = [configurations[part] for part in PARTS[:4] if configurations.get(part)]
    if found:
        return _factor(found[0])
    draws_pixels = any(configurations.get(part, {}).get("in_channels") == 3 for part in PARTS[4:])
    return 1 if draws_pixels else _USUAL_FACTOR


def _factor(vae: Mapping[str, Any]) -> int:
    """Each block but the last halves the sides, whatever the class calls its blocks."""
    for key in ("block_out_channels", "encoder_block_out_channels", "up_block_out_channels"):
        blocks = vae.get(key)
        if isinstance(blocks, list | tuple) and 0 < len(blocks) < 8:
            return _told(vae) or 2 ** (len(blocks) - 1)
    halved = vae.get("temperal_downsample")
    if isinstance(halved, list | tuple) and 0 < len(halved) < 8:
        return _told(vae) or 2 ** len(halved)
    return _told(vae) or _USUAL_FACTOR


def _told(vae: Mapping[str, Any]) -> int:
    named = (vae.get(key) for key in ("spatial_compression_ratio", "scale_factor_spatial"))
    return next((factor for factor in named if _is_whole(factor, 64)), 0)


def _token_side(transformer: Mapping[str, Any]) -> int:
    """Latents along the side of one of the transformer's tokens, or of what its tokens are drawn by."""
    kind = str(transformer.get("_class_name", ""))
    if kind.startswith("UVit"):
        return 2 if transformer.get("downsample") is True else 1
    side = transformer.get("patch_size")
    if _is_whole(side, 16) and (side > 1 or _is_of_one_latent(transformer)):
        return int(side) * (2 if kind.startswith(_BY_WORDS) else 1)
    return 2


def _is_of_one_latent(transformer: Mapping[str, Any]) -> bool:
    return str(transformer.get("_class_name", "")).startswith(_OF_ONE_LATENT)


def _unet_factor(unit_of: Mapping[str, Any]) -> int:
    """Most UNets take any latents, as their upsamplers are told which sides to give."""
    up = unit_of.get("up_block_types")
    blocks = up if isinstance(up, list | tuple) and len(up) < 8 else ()
    return 2 ** (len(blocks) - 1) if any(block in _INEXACT_UPSAMPLING for block in blocks) else 1


def _most_tokens(transformer: Mapping[str, Any]) -> int:
    """Along a side, where the transformer has a table of places."""
    most, places = transformer.get("pos_embed_max_size"), transformer.get("axes_lens")
    if _is_whole(most, _UNLIMITED):
        is_area = str(transformer.get("_class_name", "")).startswith("AuraFlow")
        return math.isqrt(most) if is_area else int(most)
    match transformer.get("max_size"), transformer.get("patch_size"):
        case [[_, *ends], [_, *patch]] if all(_is_whole(one, _UNLIMITED) for one in (*ends, *patch)) and ends:
            return max(1, min(int(end) // int(side) for end, side in zip(ends, patch, strict=False)))
    if isinstance(places, list | tuple) and places and _is_whole(places[-1], _UNLIMITED):
        return int(places[-1])
    return _UNLIMITED


def _most_latents(transformer: Mapping[str, Any]) -> int:
    """Of a picture, where the transformer has room for so many whatever its shape."""
    match transformer.get("max_resolution"):
        case [height, width] if _is_whole(height, _UNLIMITED) and _is_whole(width, _UNLIMITED):
            return height * width
    return _UNLIMITED**2


def _is_whole(value: Any, most: int) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= most
