"""Chroma: FLUX.1's transformer without guidance in it or CLIP; T5 reads the words, and its padding is told apart.

Guidance is classifier-free. Which of the 512 tokens are words goes beside them into each call.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from craft_protos.generate import TextSpec

from craftd.worker.families import guidance
from craftd.worker.families.base import Conditioning, ModelRow, TextEncoder
from craftd.worker.families.flow import EvenlySpaced, packed, places, unpacked
from craftd.worker.families.text import T5Text

_WORDS = 512  # tokens


class Chroma(EvenlySpaced):
    """The chroma family. `pipe` is a loaded ChromaPipeline; its own loop is never used."""

    composes = True

    def __init__(self, pipe: Any, device: torch.device) -> None:
        super().__init__(pipe, device)
        self._t5 = T5Text(pipe.tokenizer, pipe.text_encoder, device, length=_WORDS, masks_padding=True)

    @property
    def texts(self) -> Sequence[TextEncoder]:
        return [self._t5]

    def encode(self, text: TextSpec) -> Conditioning:
        positive, words = self._read(text.prompt)
        if text.guidance_scale <= 1:
            return Conditioning(positive, None, text, words)
        negative, negative_words = self._read(text.negative_prompt)
        return Conditioning(positive, negative, text, words, negative_words)

    def remarks(self, text: TextSpec) -> Sequence[str]:
        said = self._t5.remarks({"prompt": text.prompt, "negative prompt": text.negative_prompt})
        if text.negative_prompt and text.guidance_scale <= 1:
            said.append(f"the negative prompt does nothing with a guidance scale of {text.guidance_scale:g}")
        return said

    def order(self, rows: Sequence[ModelRow]) -> Sequence[ModelRow]:
        return guidance.order(rows)

    def predict(self, rows: Sequence[ModelRow]) -> list[torch.Tensor]:
        batch = guidance.stack(rows)
        samples, words = batch.samples, batch.pooled
        assert words is not None
        tokens = packed(samples)
        output = self._transformer(
            hidden_states=tokens,
            timestep=batch.timesteps.to(samples.dtype) / 1000,
            encoder_hidden_states=batch.texts,
            txt_ids=torch.zeros(batch.texts.shape[1], 3, device=self._device, dtype=batch.texts.dtype),
            img_ids=places(samples, 0),
            attention_mask=torch.cat([words, words.new_ones(tokens.shape[:2])], dim=1),
            return_dict=False,
        )[0]
        return batch.guide(unpacked(output, samples))

    def _read(self, prompt: str) -> tuple[torch.Tensor, torch.Tensor]:
        """1, tokens, features; and 1, tokens: 1 for a word's and for the first of the padding, else 0."""
        embedding = self._t5.embed(prompt)
        within = torch.arange(embedding.shape[1], device=self._device) <= self._t5.count(prompt)
        return embedding, within.to(embedding.dtype)[None]
