"""Stable Diffusion 1 and 2, and whatever else diffusers loads as a StableDiffusionPipeline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import torch
from craft_protos.generate import TextSpec
from craft_protos.reasons import CraftError
from diffusers.models.adapter import T2IAdapter

from craftd.worker.families import controlnets, guidance, samplers
from craftd.worker.families.base import Conditioning, Family, ModelRow, TextEncoder
from craftd.worker.families.controlnets import Call, Residuals
from craftd.worker.families.guidance import Stacked
from craftd.worker.families.samplers import Scheduler
from craftd.worker.families.text import ClipText
from craftd.worker.process.device import uploaded

# Its UNet's arguments that take what control models say.
_SKIPPED, _MIDDLE = "down_block_additional_residuals", "mid_block_additional_residual"
_WITHIN = "down_intrablock_additional_residuals"
_KEPT = 16  # embeddings of batches' guidance scales


class StableDiffusion(Family):
    """The sd family. `pipe` is a loaded StableDiffusionPipeline; its own loop is never used."""

    composes = True
    _begins = False  # whether its pipeline counts from the first timestep, whichever that is
    _aligned = "sd"  # what Align Your Steps takes it for

    def __init__(self, pipe: Any, device: torch.device) -> None:
        _check(pipe)
        super().__init__(pipe, device)
        self._unet = pipe.unet
        if device.type == "cuda" and self._unet.dtype != torch.float32:
            self._unet.to(memory_format=torch.channels_last)  # as its convolutions want it
        self._embedded = lru_cache(_KEPT)(self._embed_guidance)
        self._take_encoders(pipe, device)

    def _take_encoders(self, pipe: Any, device: torch.device) -> None:
        self._text = ClipText(pipe.tokenizer, pipe.text_encoder, device)

    @property
    def inpaints(self) -> bool:
        return bool(self._unet.config.in_channels == _inpainting(self._pipe))

    @property
    def texts(self) -> Sequence[TextEncoder]:
        return [self._text]

    def encode(self, text: TextSpec) -> Conditioning:
        positive = self._text.encode(text.prompt)
        if text.guidance_scale <= 1 or self._is_distilled:
            return Conditioning(self._text.embed(positive, len(positive), text.clip_skip), None, text)
        negative = self._text.encode(text.negative_prompt)
        count = max(len(positive), len(negative))
        embedding = self._text.embed(positive, count, text.clip_skip)
        return Conditioning(embedding, self._text.embed(negative, count, text.clip_skip_of_negative), text)

    def schedule(self, sampler: str, steps: int, width: int, height: int) -> Scheduler:
        scheduler = samplers.build(sampler, self._pipe.scheduler, aligned=self._aligned)
        samplers.spread(scheduler, steps, begins=self._begins)
        return scheduler

    def order(self, rows: Sequence[ModelRow]) -> Sequence[ModelRow]:
        return guidance.order(rows)

    def predict(self, rows: Sequence[ModelRow]) -> list[torch.Tensor]:
        """Model rows: the negatives of the guided request rows first, then one of every request row."""
        batch = guidance.stack(rows)
        added = self._added(batch)
        output = self._unet(
            batch.inputs,
            batch.timesteps,
            encoder_hidden_states=batch.texts,
            timestep_cond=self._guidance_embedding(batch.order) if self._is_distilled else None,
            added_cond_kwargs=added,
            return_dict=False,
            **self._controlled(batch, added),
        )[0]
        return batch.guide(output)

    def _added(self, batch: Stacked) -> dict[str, torch.Tensor] | None:
        """What the UNet takes beside the text."""
        return None

    def _controlled(self, batch: Stacked, added: Mapping[str, torch.Tensor] | None) -> dict[str, Any]:
        """What the UNet is told of the rows' control pictures."""
        read = partial(_read_control, batch, added)
        told: dict[str, Any] = dict(
            controlnets.residuals(batch.order, read, batch.samples.dtype, guided=len(batch.guided))
        )
        if _MIDDLE in told:
            told[_MIDDLE] = told[_MIDDLE][0]
        return told

    @property
    def _is_distilled(self) -> bool:
        """Whether guidance goes into the model itself (latent consistency models)."""
        return self._unet.config.time_cond_proj_dim is not None

    def _guidance_embedding(self, rows: Sequence[ModelRow]) -> torch.Tensor:
        return self._embedded(tuple(row.conditioning.guidance_scale - 1 for row in rows), rows[0].sample.dtype)

    def _embed_guidance(self, scales: tuple[float, ...], dtype: torch.dtype) -> torch.Tensor:
        embedding: torch.Tensor = self._pipe.get_guidance_scale_embedding(
            torch.tensor(scales), embedding_dim=self._unet.config.time_cond_proj_dim
        )
        return uploaded(embedding.to(dtype), self._device)


def _read_control(batch: Stacked, added: Mapping[str, torch.Tensor] | None, call: Call) -> Residuals:
    """A T2I-adapter's features go into the UNet's blocks, a ControlNet's to what the UNet skips over."""
    if isinstance(call.network, T2IAdapter):
        levels = zip(*(one.features for one in call.controls), strict=True)
        return {_WITHIN: [torch.cat(level) * call.scales(4) for level in levels]}
    down, middle = call.network(
        call.of(batch.samples),
        batch.timesteps[call.rows],
        encoder_hidden_states=call.of(batch.texts),
        controlnet_cond=call.pictures,
        conditioning_scale=call.scales(4),
        added_cond_kwargs=None if added is None else {name: call.of(one) for name, one in added.items()},
        return_dict=False,
    )
    return {_SKIPPED: down, _MIDDLE: [middle]}


def _check(pipe: Any) -> None:
    channels = pipe.unet.config.in_channels, pipe.vae.config.latent_channels
    if channels[0] not in (channels[1], _inpainting(pipe)):
        raise CraftError(
            "UNSUPPORTED_MODEL",
            f"its UNet takes {channels[0]} channels where the autoencoder gives {channels[1]}",
            "craft draws with none that were made for depth or for editing by words: take another model",
        )


def _inpainting(pipe: Any) -> int:
    """The channels of a UNet for inpainting: the latents, a mask, and the latents of what it leaves."""
    return 2 * int(pipe.vae.config.latent_channels) + 1
