"""Stable Diffusion 1 and 2, and whatever else diffusers loads as a StableDiffusionPipeline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from craft_protos.reasons import CraftError, invalid
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.utils.torch_utils import randn_tensor

from craftd.worker.families.base import Conditioning, ModelRow
from craftd.worker.families.sketch import LinearSketch
from craftd.worker.families.text import ClipText
from craftd.worker.picture import Pixels
from craftd.worker.samplers import Scheduler

_SKETCH_SIDE = 32  # of the latents


class StableDiffusion:
    """The sd family. `pipe` is a loaded StableDiffusionPipeline; its own loop is never used."""

    def __init__(self, pipe: Any, device: torch.device) -> None:
        _check(pipe)
        self._pipe = pipe
        self._unet = pipe.unet
        self._vae = pipe.vae
        self._device = device
        self._text = ClipText(pipe.tokenizer, pipe.text_encoder, device)
        self._sketch: LinearSketch | None = None

    @property
    def scheduler(self) -> Scheduler:
        scheduler: Scheduler = self._pipe.scheduler
        return scheduler

    def encode(self, prompt: str, negative_prompt: str, guidance_scale: float) -> Conditioning:
        positive = self._text.encode(prompt)
        if guidance_scale <= 1 or self._is_distilled:
            return Conditioning(self._text.embed(positive, len(positive)), None, guidance_scale)
        negative = self._text.encode(negative_prompt)
        count = max(len(positive), len(negative))
        return Conditioning(self._text.embed(positive, count), self._text.embed(negative, count), guidance_scale)

    def prepare(self, width: int, height: int, generator: torch.Generator) -> torch.Tensor:
        scale = self._pipe.vae_scale_factor
        for field, side in (("width", width), ("height", height)):
            if side < scale or side % scale:
                raise invalid(field, f"{side} is not a multiple of {scale}", f"use {max(side // scale, 1) * scale}")
        shape = (1, self._unet.config.in_channels, height // scale, width // scale)
        dtype = self._pipe.text_encoder.dtype
        noise: torch.Tensor = randn_tensor(shape, generator=generator, device=self._device, dtype=dtype)
        return noise

    def predict(self, rows: Sequence[ModelRow]) -> list[torch.Tensor]:
        """Model rows: the negatives of the guided request rows first, then one of every request row."""
        guided = [row for row in rows if row.conditioning.negative is not None]
        order = [*guided, *rows]
        texts = [row.conditioning.negative for row in guided] + [row.conditioning.positive for row in rows]
        output = self._unet(
            torch.cat([row.sample for row in order]),
            torch.stack([row.timestep.to(torch.float32) for row in order]),
            encoder_hidden_states=torch.cat([text for text in texts if text is not None]),
            timestep_cond=self._guidance_embedding(order) if self._is_distilled else None,
            return_dict=False,
        )[0]
        uncond = iter(output[: len(guided)].split(1))
        return [self._guide(row, uncond, text) for row, text in zip(rows, output[len(guided) :].split(1), strict=True)]

    def decode(self, latents: torch.Tensor) -> list[Pixels]:
        image = self._vae.decode(latents / self._vae.config.scaling_factor, return_dict=False)[0]
        if not torch.isfinite(image).all():
            raise CraftError(
                "JOB_FAILED", "the autoencoder gave numbers that are not finite", "try --precision fp32 or bf16"
            )
        array = self._pipe.image_processor.postprocess(image, output_type="np")
        return list((array * 255).round().astype("uint8"))

    def sketch(self, latents: torch.Tensor) -> Pixels:
        shrink = max(1, max(latents.shape[-2:]) // _SKETCH_SIDE)
        small = torch.nn.functional.avg_pool2d(latents.float(), shrink).to(latents.dtype)
        with torch.inference_mode():
            if isinstance(self._vae, AutoencoderTiny):
                return self.decode(small)[0]
            if self._sketch is None:
                self._sketch = LinearSketch.fit(self._vae)
            return self._sketch.draw(latents)

    def offload(self) -> bool:
        if self._device.type != "cuda":
            return False
        self._pipe.enable_model_cpu_offload(device=self._device)
        return True

    def tile(self) -> bool:
        self._vae.enable_tiling()
        return True

    @property
    def _is_distilled(self) -> bool:
        """Whether guidance goes into the model itself (latent consistency models)."""
        return self._unet.config.time_cond_proj_dim is not None

    def _guidance_embedding(self, rows: Sequence[ModelRow]) -> torch.Tensor:
        scales = torch.tensor([row.conditioning.guidance_scale - 1 for row in rows])
        embedding: torch.Tensor = self._pipe.get_guidance_scale_embedding(
            scales, embedding_dim=self._unet.config.time_cond_proj_dim
        )
        return embedding.to(device=self._device, dtype=rows[0].sample.dtype)

    @staticmethod
    def _guide(row: ModelRow, uncond: Any, text: torch.Tensor) -> torch.Tensor:
        if row.conditioning.negative is None:
            return text
        without: torch.Tensor = next(uncond)
        return without + row.conditioning.guidance_scale * (text - without)


def _check(pipe: Any) -> None:
    channels = pipe.unet.config.in_channels, pipe.vae.config.latent_channels
    if channels[0] != channels[1]:
        raise CraftError(
            "UNSUPPORTED_MODEL",
            f"its UNet takes {channels[0]} channels where the autoencoder gives {channels[1]}",
            "models for inpainting or depth do not draw from text alone",
        )
