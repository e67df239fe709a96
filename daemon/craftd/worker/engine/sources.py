"""Canvases -> what rows begin from, and pictures -> what the model is shown: encoded once for all images of a job."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from craft_protos.dispatch import Dispatch
from craft_protos.generate import Control
from craft_protos.reasons import invalid

from craftd.worker.families.base import Family
from craftd.worker.families.controls import RowControl, sees_pixels
from craftd.worker.families.latents import NO_MASK, Covered, Source
from craftd.worker.families.lru_cache import LruCache, tensor_bytes
from craftd.worker.inputs import masks
from craftd.worker.inputs.canvas import Canvas
from craftd.worker.inputs.controls import ControlPicture, ControlPictures
from craftd.worker.inputs.masks import Levels
from craftd.worker.inputs.references import Reference, Shown
from craftd.worker.output.picture import Pixels

_CACHE_BYTES = 64 << 20


class Sources:
    """Encodes with one model's autoencoder. The least recently used goes first."""

    def __init__(self, family: Family) -> None:
        self._family = family
        self._encoded: LruCache[torch.Tensor] = LruCache(_CACHE_BYTES, tensor_bytes)
        self._maps: LruCache[torch.Tensor] = LruCache(_CACHE_BYTES, tensor_bytes)
        self._latents: LruCache[torch.Tensor] = LruCache(_CACHE_BYTES, tensor_bytes)

    def of(self, canvas: Canvas, strength: float) -> Source:
        """What a row begins from that is drawn on this canvas. Raises what encoding raises."""
        encoded = self._encoded.get(canvas.key, lambda: self._encode(canvas.pixels))
        mask = canvas.mask
        if mask is None and not self._family.inpaints:
            return Source(encoded, strength)
        if mask is None:  # all of it is white
            mask = np.full(canvas.pixels.shape[:2], 255, np.uint8)
        covered = self._covered(canvas, mask) if self._family.inpaints else None
        return Source(encoded, strength, masks.of_latents(mask, self._family.latent_side), covered)

    def references(self, shown: Shown) -> tuple[torch.Tensor, ...]:
        """Latents of pictures that the model is shown. Raises what encoding raises."""
        return tuple(self._shown(one) for one in shown.references)

    def controls(self, job: Dispatch, shown: ControlPictures, networks: Mapping[str, Any]) -> tuple[RowControl, ...]:
        """The job's control pictures, encoded for the control models that it names. Raises what encoding raises."""
        pairs = zip(job.drawing.controls, shown.pictures, strict=True)
        return tuple(self._control(one, picture, networks[one.model]) for one, picture in pairs)

    def clear(self) -> None:
        self._maps.clear()
        self._encoded.clear()
        self._latents.clear()

    def _control(self, one: Control, picture: ControlPicture, network: Any) -> RowControl:
        def make() -> torch.Tensor:
            values = torch.from_numpy(picture.pixels.astype(np.float32) / 255).permute(2, 0, 1)[None]
            return self._family.encode_control(network, values)

        key = picture.key, network.dtype, sees_pixels(network)
        assert one.scale is not None and one.start is not None and one.end is not None, one
        return RowControl(network, self._maps.get(key, make), one.scale, one.start, one.end, one.kind)

    def _covered(self, canvas: Canvas, mask: Levels) -> Covered:
        """Grey where the mask is white. Raises INVALID_FIELD without a mask."""
        if canvas.paste is None:
            raise invalid("mask", *NO_MASK)
        white = torch.from_numpy(masks.whites(mask).astype(np.float32))[None, None]
        key = canvas.key, hashlib.sha256(mask.tobytes()).digest()
        values = _values(canvas.pixels) * (1 - white)
        return Covered(self._encoded.get(key, lambda: self._family.encode_start(values)), white)

    def _encode(self, pixels: Pixels) -> torch.Tensor:
        return self._family.encode_start(_values(pixels))

    def _shown(self, one: Reference) -> torch.Tensor:
        return self._latents.get(one.key, lambda: self._family.encode_image(_values(one.pixels)))


def _values(pixels: Pixels) -> torch.Tensor:
    """1, 3, height, width in -1 to 1."""
    return torch.from_numpy(pixels.astype(np.float32) / 255).permute(2, 0, 1)[None] * 2 - 1
