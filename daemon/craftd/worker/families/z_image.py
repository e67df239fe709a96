"""Z-Image: one stream of the picture's tokens and the words', which Qwen3 reads as a conversation's only message.

Rows of different texts share a call, each with its own length: the transformer fills them up and masks what it filled.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from craft_protos.generate import TextSpec
from diffusers.models.transformers.transformer_z_image import SEQ_MULTI_OF
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from craftd.worker.families import controlnets, guidance
from craftd.worker.families.base import Conditioning, ModelRow
from craftd.worker.families.controlnets import Call, Residuals
from craftd.worker.families.conversing import Conversing, of_one_message

_Given = tuple[list[torch.Tensor], torch.Tensor, list[torch.Tensor]]
_SHARED = (
    *("t_scale", "t_embedder", "all_x_embedder", "cap_embedder", "rope_embedder"),
    *("noise_refiner", "context_refiner", "x_pad_token", "cap_pad_token"),
)


class ZImage(Conversing):
    """The z-image family. `pipe` is a loaded ZImagePipeline; its own loop is never used."""

    def encode(self, text: TextSpec) -> Conditioning:
        negative = self._text.embed(text.negative_prompt) if self._is_guided(text) else None
        return Conditioning(self._text.embed(text.prompt), negative, text, mixes_lengths=True)

    def predict(self, rows: Sequence[ModelRow]) -> list[torch.Tensor]:
        batch = guidance.stack(rows)
        texts = [text[:length] for text, length in zip(batch.texts, batch.lengths, strict=True)]
        samples = batch.samples.to(self._transformer.dtype).unsqueeze(2)
        given = list(samples.unbind()), (1000 - batch.timesteps) / 1000, texts
        with _row_by_row(self._transformer.cap_embedder, batch.lengths):
            said = controlnets.residuals(batch.order, partial(self._read_control, given), samples.dtype)
            by_layer = {int(layer): one for layer, (one,) in said.items()} or None
            output = self._transformer(*given, controlnet_block_samples=by_layer, return_dict=False)[0]
        return batch.guide(-torch.stack(output).squeeze(2).float(), guidance.added)

    def draw_control(self, network: Any, encoded: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """The middle of what the autoencoder gives; a network that is shown a mask and what it leaves gets noughts."""
        latents = self._autoencoder.drawn(encoded, None).to(network.dtype)
        more = network.config.control_in_dim - latents.shape[1]
        return torch.cat([latents, latents.new_zeros(1, more, *latents.shape[2:])], dim=1)

    def _read_control(self, given: _Given, call: Call) -> Residuals:
        """Of all rows, as it computes with layers of the transformer's, whose LoRAs go by the rows of the call."""
        count = len(given[0])
        pictures, scales = (call.among(one, count) for one in (call.pictures, call.scales(3)))
        with _lent(call.network, self._transformer):
            said = call.network(*given, list(pictures.unsqueeze(2).unbind()), conditioning_scale=scales)
        return {str(layer): [one[call.rows]] for layer, one in said.items()}

    @property
    def _noise_dtype(self) -> torch.dtype:
        return torch.float32

    def _is_guided(self, text: TextSpec) -> bool:
        return text.guidance_scale > 0

    def _encoded(self, text: str) -> torch.Tensor:
        embedding: torch.Tensor = self._pipe.encode_prompt(text, self._device, do_classifier_free_guidance=False)[0][0]
        return embedding[None]

    def _framed(self, text: str) -> str:
        return of_one_message(self._pipe.tokenizer, text, thinking=True)


@contextmanager
def _lent(network: Any, transformer: Any) -> Iterator[None]:
    """While it holds, a control model has the layers that it shares with the transformer, whichever draws."""
    network.from_transformer(network, transformer)
    try:
        yield
    finally:
        for name in _SHARED:
            setattr(network, name, None)


@contextmanager
def _row_by_row(embedder: nn.Module, lengths: Sequence[int]) -> Iterator[None]:
    """While it holds, an embedder that gets texts one behind another computes them as rows, which LoRAs go by."""
    filled = [length + -length % SEQ_MULTI_OF for length in lengths]
    if len(set(filled)) == 1:
        yield
        return
    own = embedder.forward

    def forward(joined: torch.Tensor) -> torch.Tensor:
        rows = own(pad_sequence(list(torch.split(joined, filled)), batch_first=True))
        return torch.cat([row[:length] for row, length in zip(rows, filled, strict=True)])

    embedder.__dict__["forward"] = forward
    try:
        yield
    finally:
        del embedder.__dict__["forward"]
