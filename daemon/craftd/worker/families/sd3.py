"""Stable Diffusion 3 and 3.5: two CLIP encoders and, where the model has it, T5; their tokens stand in one row."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from craft_protos.generate import TextSpec

from craftd.worker.families import controlnets, guidance
from craftd.worker.families.base import Conditioning, ModelRow, TextEncoder
from craftd.worker.families.controlnets import Call, Residuals
from craftd.worker.families.flow import FlowMatching
from craftd.worker.families.guidance import Stacked
from craftd.worker.families.prompts import Chunk
from craftd.worker.families.text import ClipTexts, PooledClipText, T5Text, most

_WORDS = 256  # tokens of T5


class StableDiffusion3(FlowMatching):
    """The sd3 family. `pipe` is a loaded StableDiffusion3Pipeline; its own loop is never used."""

    composes = True

    def __init__(self, pipe: Any, device: torch.device) -> None:
        super().__init__(pipe, device, patch=pipe.transformer.config.patch_size)
        self._clip = ClipTexts(
            PooledClipText(pipe.tokenizer, pipe.text_encoder, device),
            PooledClipText(pipe.tokenizer_2, pipe.text_encoder_2, device),
        )
        has_t5 = pipe.text_encoder_3 is not None
        self._t5 = T5Text(pipe.tokenizer_3, pipe.text_encoder_3, device, length=_WORDS) if has_t5 else None

    @property
    def texts(self) -> Sequence[TextEncoder]:
        return [*self._clip.encoders, *([] if self._t5 is None else [self._t5])]

    def encode(self, text: TextSpec) -> Conditioning:
        clip = self._clip
        positive, negative = clip.chunks(text.prompt), clip.chunks(text.negative_prompt)
        if text.guidance_scale <= 1:
            embedding = self._embed(text.prompt, positive, most(positive))
            return Conditioning(embedding, None, text, clip.pooled(positive))
        count = most(positive, negative)
        return Conditioning(
            self._embed(text.prompt, positive, count),
            self._embed(text.negative_prompt, negative, count),
            text,
            clip.pooled(positive),
            clip.pooled(negative),
        )

    def remarks(self, text: TextSpec) -> Sequence[str]:
        texts = {"prompt": text.prompt, "negative prompt": text.negative_prompt}
        return () if self._t5 is None else self._t5.remarks(texts)

    def order(self, rows: Sequence[ModelRow]) -> Sequence[ModelRow]:
        return guidance.order(rows)

    def predict(self, rows: Sequence[ModelRow]) -> list[torch.Tensor]:
        batch = guidance.stack(rows)
        output = self._transformer(
            hidden_states=batch.samples,
            timestep=batch.timesteps,
            encoder_hidden_states=batch.texts,
            pooled_projections=batch.pooled,
            return_dict=False,
            **controlnets.residuals(batch.order, partial(self._read_control, batch), batch.samples.dtype),
        )[0]
        return batch.guide(output)

    def draw_control(self, network: Any, encoded: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """The middle of what the autoencoder gives: its pipeline draws from a generator that no seed sets.

        Those that are told nothing of the prompt as a whole were trained without the autoencoder's shift.
        """
        latents = self._autoencoder.drawn(encoded, None)
        config = self._vae.config
        shift = float(config.get("shift_factor") or 0.0) * float(config.scaling_factor)
        told: torch.Tensor = latents + shift if network.config.force_zeros_for_pooled_projection else latents
        return told.to(network.dtype)

    def _read_control(self, batch: Stacked, call: Call) -> Residuals:
        """Those without words of their own are given places by the transformer, where they have none either."""
        network, config = call.network, call.network.config
        assert batch.pooled is not None
        samples, pooled = batch.samples, call.of(batch.pooled)
        places = samples if network.pos_embed is not None else self._transformer.pos_embed(samples)
        (said,) = network(
            hidden_states=call.of(places),
            timestep=batch.timesteps[call.rows],
            encoder_hidden_states=None if config.joint_attention_dim is None else call.of(batch.texts),
            pooled_projections=torch.zeros_like(pooled) if config.force_zeros_for_pooled_projection else pooled,
            controlnet_cond=call.pictures,
            conditioning_scale=call.scales(3),
            return_dict=False,
        )
        blocks = len(self._transformer.transformer_blocks)
        return {"block_controlnet_hidden_states": controlnets.spread(said, blocks, is_even=True)}

    def _embed(self, prompt: str, chunks: Sequence[Sequence[Chunk]], count: int) -> torch.Tensor:
        """1, tokens, features: CLIP's, filled up with noughts to T5's width, then T5's."""
        clip = self._clip.embed(chunks, count)
        width = self._transformer.config.joint_attention_dim
        words = clip.new_zeros(1, _WORDS, width) if self._t5 is None else self._t5.embed(prompt)
        padded = torch.nn.functional.pad(clip, (0, words.shape[-1] - clip.shape[-1]))
        return torch.cat([padded, words], dim=1)
