"""Canvases -> what rows begin from: encoded once for all images of a job, and for the jobs to come."""

from __future__ import annotations

import numpy as np
import torch

from craftd.worker.families.base import Family
from craftd.worker.families.latents import Source
from craftd.worker.families.lru_cache import LruCache, tensor_bytes
from craftd.worker.inputs import masks
from craftd.worker.inputs.canvas import Canvas
from craftd.worker.inputs.masks import Levels
from craftd.worker.output.picture import Pixels

_CACHE_BYTES = 64 << 20


class Sources:
    """Encodes with one model's autoencoder. The least recently used goes first."""

    def __init__(self, family: Family) -> None:
        self._family = family
        self._encoded: LruCache[torch.Tensor] = LruCache(_CACHE_BYTES, tensor_bytes)

    def of(self, canvas: Canvas, strength: float) -> Source:
        """What a row begins from that is drawn on this canvas. Raises what encoding raises."""
        encoded = self._encoded.get(("all", canvas.key), lambda: self._encode(canvas.pixels))
        mask = canvas.mask
        if mask is None and self._family.takes_masks:
            mask = np.full(canvas.pixels.shape[:2], 255, dtype=np.uint8)
        if mask is None:
            return Source(encoded, strength)
        levels = masks.of_latents(mask, self._family.latent_side)
        masked = self._masked(canvas, mask) if self._family.takes_masks else None
        return Source(encoded, strength, levels, masked)

    def clear(self) -> None:
        self._encoded.clear()

    def _masked(self, canvas: Canvas, mask: Levels) -> torch.Tensor:
        """Of the picture without what is drawn anew, which is grey."""
        whites = masks.whites(mask)
        key = ("masked", canvas.key, whites.tobytes())
        return self._encoded.get(key, lambda: self._encode(canvas.pixels, whites))

    def _encode(self, pixels: Pixels, left_out: np.ndarray | None = None) -> torch.Tensor:
        values = torch.from_numpy(pixels.astype(np.float32) / 255).permute(2, 0, 1)[None] * 2 - 1
        if left_out is not None:
            values = values * torch.from_numpy(~left_out)
        return self._family.encode_start(values)
