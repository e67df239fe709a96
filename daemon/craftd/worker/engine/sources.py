"""Canvases -> what rows begin from: encoded once for all images of a job, and for the jobs to come."""

from __future__ import annotations

import numpy as np
import torch

from craftd.worker.families.base import Family
from craftd.worker.families.latents import Source
from craftd.worker.families.lru_cache import LruCache, tensor_bytes
from craftd.worker.inputs import masks
from craftd.worker.inputs.canvas import Canvas
from craftd.worker.output.picture import Pixels

_CACHE_BYTES = 64 << 20


class Sources:
    """Encodes with one model's autoencoder. The least recently used goes first."""

    def __init__(self, family: Family) -> None:
        self._family = family
        self._encoded: LruCache[torch.Tensor] = LruCache(_CACHE_BYTES, tensor_bytes)

    def of(self, canvas: Canvas, strength: float) -> Source:
        """What a row begins from that is drawn on this canvas. Raises what encoding raises."""
        encoded = self._encoded.get(canvas.key, lambda: self._encode(canvas.pixels))
        if canvas.mask is None:
            return Source(encoded, strength)
        return Source(encoded, strength, masks.of_latents(canvas.mask, self._family.latent_side))

    def clear(self) -> None:
        self._encoded.clear()

    def _encode(self, pixels: Pixels) -> torch.Tensor:
        values = torch.from_numpy(pixels.astype(np.float32) / 255).permute(2, 0, 1)[None] * 2 - 1
        return self._family.encode_start(values)
