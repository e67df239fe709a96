"""Stable Diffusion XL: two text encoders; the UNet is told the picture's size and the prompt as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from craftd.worker import samplers
from craftd.worker.families.base import Conditioning, TextEncoder
from craftd.worker.families.guidance import Stacked
from craftd.worker.families.sd import StableDiffusion
from craftd.worker.families.text import ClipTexts, PooledClipText, most
from craftd.worker.samplers import Scheduler


class StableDiffusionXL(StableDiffusion):
    """The sdxl family. `pipe` is a loaded StableDiffusionXLPipeline; its own loop is never used."""

    def __init__(self, pipe: Any, device: torch.device) -> None:
        super().__init__(pipe, device)
        self._texts = ClipTexts(
            PooledClipText(pipe.tokenizer, pipe.text_encoder, device),
            PooledClipText(pipe.tokenizer_2, pipe.text_encoder_2, device),
        )

    @property
    def texts(self) -> Sequence[TextEncoder]:
        return self._texts.encoders

    def encode(self, prompt: str, negative_prompt: str, guidance_scale: float) -> Conditioning:
        texts = self._texts
        positive, negative = texts.chunks(prompt), texts.chunks(negative_prompt)
        is_guided = guidance_scale > 1 and not self._is_distilled
        count = most(positive, negative) if is_guided else most(positive)
        embedding, pooled = texts.embed(positive, count), texts.last_pooled(positive)
        if not is_guided:
            return Conditioning(embedding, None, guidance_scale, pooled)
        if not negative_prompt and self._pipe.config.force_zeros_for_empty_prompt:
            zeros = torch.zeros_like(embedding), torch.zeros_like(pooled)
            return Conditioning(embedding, zeros[0], guidance_scale, pooled, zeros[1])
        without = texts.embed(negative, count), texts.last_pooled(negative)
        return Conditioning(embedding, without[0], guidance_scale, pooled, without[1])

    def schedule(self, sampler: str, steps: int, width: int, height: int) -> Scheduler:
        scheduler = super().schedule(sampler, steps, width, height)
        samplers.begin(scheduler)
        return scheduler

    def _added(self, batch: Stacked) -> dict[str, torch.Tensor] | None:
        """The picture is said to be an uncropped one of just the size that is drawn."""
        assert batch.pooled is not None
        height, width = (side * self._pipe.vae_scale_factor for side in batch.samples.shape[-2:])
        sizes = torch.tensor([[height, width, 0, 0, height, width]], dtype=batch.texts.dtype, device=self._device)
        return {"text_embeds": batch.pooled, "time_ids": sizes.expand(len(batch.order), -1)}
