"""Canvases -> what rows begin from, and pictures -> what the model is shown: encoded once for all images of a job."""

from __future__ import annotations

import numpy as np
import torch

from craftd.worker.families.base import Family
from craftd.worker.families.latents import Source
from craftd.worker.families.lru_cache import LruCache, tensor_bytes
from craftd.worker.inputs import masks
from craftd.worker.inputs.canvas import Canvas
from craftd.worker.inputs.references import Reference, Shown
from craftd.worker.output.picture import Pixels

_CACHE_BYTES = 64 << 20


class Sources:
    """Encodes with one model's autoencoder. The least recently used goes first."""

    def __init__(self, family: Family) -> None:
        self._family = family
        self._encoded: LruCache[torch.Tensor] = LruCache(_CACHE_BYTES, tensor_bytes)
        self._latents: LruCache[torch.Tensor] = LruCache(_CACHE_BYTES, tensor_bytes)

    def of(self, canvas: Canvas, strength: float) -> Source:
        """What a row begins from that is drawn on this canvas. Raises what encoding raises."""
        encoded = self._encoded.get(canvas.key, lambda: self._encode(canvas.pixels))
        if canvas.mask is None:
            return Source(encoded, strength)
        return Source(encoded, strength, masks.of_latents(canvas.mask, self._family.latent_side))

    def references(self, shown: Shown) -> tuple[torch.Tensor, ...]:
        """Latents of pictures that the model is shown. Raises what encoding raises."""
        return tuple(self._shown(one) for one in shown.references)

    def clear(self) -> None:
        self._encoded.clear()
        self._latents.clear()

    def _encode(self, pixels: Pixels) -> torch.Tensor:
        return self._family.encode_start(_values(pixels))

    def _shown(self, one: Reference) -> torch.Tensor:
        return self._latents.get(one.key, lambda: self._family.encode_image(_values(one.pixels)))


def _values(pixels: Pixels) -> torch.Tensor:
    """1, 3, height, width in -1 to 1."""
    return torch.from_numpy(pixels.astype(np.float32) / 255).permute(2, 0, 1)[None] * 2 - 1
