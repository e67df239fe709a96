"""Krea 2: one stream, whose words are many layers of Qwen3-VL for each token.

Its pipeline fills texts up to a fixed length and masks what it filled; places without words are left out here, which
changes nothing: nothing looks at them, and words have no places of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from craft_protos.generate import TextSpec

from craftd.worker.families import guidance
from craftd.worker.families.base import Conditioning, ModelRow
from craftd.worker.families.conversing import WORDS, Conversing
from craftd.worker.families.flow import packed, unpacked

_DISTILLED_SHIFT_EXPONENT = 1.15


class Krea2(Conversing):
    """The krea2 family. `pipe` is a loaded Krea2Pipeline; its own loop is never used."""

    def __init__(self, pipe: Any, device: torch.device) -> None:
        length = WORDS + pipe.prompt_template_encode_start_idx
        super().__init__(pipe, device, length=length, patch=pipe.patch_size)

    def encode(self, text: TextSpec) -> Conditioning:
        negative = self._text.embed(text.negative_prompt) if self._is_guided(text) else None
        return Conditioning(self._text.embed(text.prompt), negative, text, mixes_lengths=True)

    def predict(self, rows: Sequence[ModelRow]) -> list[torch.Tensor]:
        batch = guidance.stack(rows)
        samples, texts = batch.samples, batch.texts
        height, width = samples.shape[-2:]
        output = self._transformer(
            hidden_states=packed(samples),
            timestep=(batch.timesteps / self._pipe.scheduler.config.num_train_timesteps).to(samples.dtype),
            encoder_hidden_states=texts,
            encoder_attention_mask=batch.mask,
            position_ids=self._pipe.prepare_position_ids(texts.shape[1], height // 2, width // 2, self._device),
            return_dict=False,
        )[0]
        return [unpacked(tokens, samples) for tokens in batch.guide(output, guidance.added)]

    def _shift_exponent(self, tokens: int, steps: int) -> float:
        is_distilled = self._pipe.config.is_distilled
        return _DISTILLED_SHIFT_EXPONENT if is_distilled else super()._shift_exponent(tokens, steps)

    def _is_guided(self, text: TextSpec) -> bool:
        return text.guidance_scale > 0

    def _encoded(self, text: str) -> torch.Tensor:
        """1, tokens, layers, features"""
        embedding, mask = self._pipe.encode_prompt(text, self._device)
        words: torch.Tensor = embedding[:, mask[0]]
        return words

    def _framed(self, text: str) -> str:
        pipe = self._pipe
        return f"{pipe.prompt_template_encode_prefix}{text}{pipe.prompt_template_encode_suffix}"
