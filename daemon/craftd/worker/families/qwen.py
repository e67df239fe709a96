"""Qwen-Image: two streams, words from Qwen2.5-VL; what guidance adds may turn a token's output, not lengthen it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from craft_protos.generate import TextSpec

from craftd.worker.families import guidance
from craftd.worker.families.base import Conditioning, ModelRow
from craftd.worker.families.conversing import WORDS, Conversing
from craftd.worker.families.flow import packed, unpacked

_NOTHING = " "  # the negative prompt that its makers draw with where there is none


class QwenImage(Conversing):
    """The qwen-image family. `pipe` is a loaded QwenImagePipeline; its own loop is never used."""

    def __init__(self, pipe: Any, device: torch.device) -> None:
        super().__init__(pipe, device, length=WORDS + pipe.prompt_template_encode_start_idx)

    def encode(self, text: TextSpec) -> Conditioning:
        negative = self._text.embed(text.negative_prompt or _NOTHING) if self._is_guided(text) else None
        return Conditioning(self._text.embed(text.prompt), negative, text, mixes_lengths=True)

    def predict(self, rows: Sequence[ModelRow]) -> list[torch.Tensor]:
        batch = guidance.stack(rows)
        samples = batch.samples
        height, width = samples.shape[-2:]
        output = self._transformer(
            hidden_states=packed(samples),
            timestep=batch.timesteps.to(samples.dtype) / 1000,
            guidance=None,
            encoder_hidden_states=batch.texts,
            encoder_hidden_states_mask=batch.mask,
            img_shapes=[[(1, height // 2, width // 2)]] * len(samples),
            return_dict=False,
        )[0]
        return [unpacked(tokens, samples) for tokens in batch.guide(output, _as_long)]

    def _encoded(self, text: str) -> torch.Tensor:
        embedding: torch.Tensor = self._pipe.encode_prompt(text, self._device, max_sequence_length=WORDS)[0]
        return embedding

    def _framed(self, text: str) -> str:
        return str(self._pipe.prompt_template_encode.format(text))


def _as_long(without: torch.Tensor, text: torch.Tensor, scale: float) -> torch.Tensor:
    """Guided tokens, each as long as the one that has the text."""
    guided = guidance.extrapolated(without, text, scale)
    lengths = [torch.linalg.vector_norm(tokens, dim=-1, keepdim=True) for tokens in (text, guided)]
    as_long: torch.Tensor = guided * (lengths[0] / lengths[1])
    return as_long
