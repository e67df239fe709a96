"""Stable Diffusion XL: two text encoders; the UNet is told the picture's size and the prompt as a whole.

Its refiner has the second of the encoders alone, and is told how good the picture shall look in place of its size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from craft_protos.generate import TextSpec
from craft_protos.reasons import CraftError

from craftd.worker.families.base import Conditioning, TextEncoder
from craftd.worker.families.guidance import Stacked
from craftd.worker.families.sd import StableDiffusion
from craftd.worker.families.text import ClipTexts, PooledClipText, most

_GOOD, _POOR = 6.0, 2.5  # aesthetic scores


class StableDiffusionXL(StableDiffusion):
    """The sdxl family. `pipe` is a loaded StableDiffusionXLPipeline; its own loop is never used."""

    _begins = True
    _aligned = "sdxl"
    _upcasts = True

    def _take_encoders(self, pipe: Any, device: torch.device) -> None:
        self._texts = ClipTexts(
            PooledClipText(pipe.tokenizer, pipe.text_encoder, device),
            PooledClipText(pipe.tokenizer_2, pipe.text_encoder_2, device),
        )

    @property
    def texts(self) -> Sequence[TextEncoder]:
        return self._texts.encoders

    def encode(self, text: TextSpec) -> Conditioning:
        texts = self._texts
        positive, negative = texts.chunks(text.prompt), texts.chunks(text.negative_prompt)
        is_guided = text.guidance_scale > 1 and not self._is_distilled
        count = most(positive, negative) if is_guided else most(positive)
        embedding, pooled = texts.embed(positive, count, text.clip_skip), texts.last_pooled(positive)
        if not is_guided:
            return Conditioning(embedding, None, text, pooled)
        if not text.negative_prompt and self._pipe.config.force_zeros_for_empty_prompt:
            zeros = torch.zeros_like(embedding), torch.zeros_like(pooled)
            return Conditioning(embedding, zeros[0], text, pooled, zeros[1])
        without = texts.embed(negative, count, text.clip_skip_of_negative), texts.last_pooled(negative)
        return Conditioning(embedding, without[0], text, pooled, without[1])

    def _added(self, batch: Stacked) -> dict[str, torch.Tensor] | None:
        assert batch.pooled is not None
        height, width = (side * self._pipe.vae_scale_factor for side in batch.samples.shape[-2:])
        guided = len(batch.guided)
        told = tuple(
            (*_original(row.conditioning.text, width, height), *self._wish(width, height, is_negative=place < guided))
            for place, row in enumerate(batch.order)
        )
        return {"text_embeds": batch.pooled, "time_ids": self._on_device(told, batch.texts.dtype)}

    def _wish(self, width: int, height: int, *, is_negative: bool) -> Sequence[float]:
        """What the UNet is told that the picture shall be: as large as it is drawn."""
        return height, width


class StableDiffusionXLRefiner(StableDiffusionXL):
    """The sdxl-refiner family. `pipe` is a loaded StableDiffusionXLImg2ImgPipeline."""

    _begins = False

    def __init__(self, pipe: Any, device: torch.device) -> None:
        if pipe.text_encoder_2 is None or not pipe.config.requires_aesthetics_score:
            raise CraftError(
                "UNSUPPORTED_MODEL",
                "its pipeline begins from a picture, and it is not Stable Diffusion XL's refiner",
                "take it as a StableDiffusionXLPipeline: that begins from pictures, too",
            )
        super().__init__(pipe, device)

    def _take_encoders(self, pipe: Any, device: torch.device) -> None:
        self._texts = ClipTexts(PooledClipText(pipe.tokenizer_2, pipe.text_encoder_2, device))

    @property
    def _noise_dtype(self) -> torch.dtype:
        dtype: torch.dtype = self._pipe.text_encoder_2.dtype
        return dtype

    def _wish(self, width: int, height: int, *, is_negative: bool) -> Sequence[float]:
        """How good the picture shall look, of ten, as the refiner's pipeline has it."""
        return (_POOR if is_negative else _GOOD,)


def _original(text: TextSpec, width: int, height: int) -> list[int]:
    """What the UNet is told of the picture before it was cropped: where nothing else is asked, the size drawn."""
    return [text.original_height or height, text.original_width or width, text.crop_top, text.crop_left]
