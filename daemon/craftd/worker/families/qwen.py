"""Qwen-Image: two streams, words from Qwen2.5-VL; what guidance adds may turn a token's output, not lengthen it.

Those that edit are shown pictures twice: Qwen2.5-VL reads them among the words, and their latents follow the noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from craft_protos.generate import TextSpec
from craft_protos.reasons import invalid
from PIL import Image

from craftd.architectures.architecture import SHOWN_UNIT
from craftd.architectures.sizes import in_shape
from craftd.worker.families import controlnets, guidance
from craftd.worker.families.base import Conditioning, ModelRow
from craftd.worker.families.controlnets import Call, Residuals
from craftd.worker.families.conversing import WORDS, Conversing
from craftd.worker.families.flow import packed, shown, unpacked
from craftd.worker.families.guidance import Stacked
from craftd.worker.families.seeing import PLACE
from craftd.worker.inputs.fitting import Placement, Size
from craftd.worker.inputs.references import NOTHING, Layout, Shown

_UNLIMITED = 1 << 20  # tokens: nothing is left out
_ENCODED, _READ = 1024 * 1024, 384 * 384  # pixels of a picture that is shown
_MOST_NARROW = 100
_NOTHING = " "  # the negative prompt that its makers draw with where there is none


class QwenImage(Conversing):
    """The qwen-image family. `pipe` is a loaded QwenImagePipeline; its own loop is never used."""

    def __init__(self, pipe: Any, device: torch.device, *, length: int = WORDS) -> None:
        super().__init__(pipe, device, length=length + pipe.prompt_template_encode_start_idx)

    def encode(self, text: TextSpec) -> Conditioning:
        negative = self._text.embed(text.negative_prompt or _NOTHING) if self._is_guided(text) else None
        return Conditioning(self._text.embed(text.prompt), negative, text, mixes_lengths=True)

    def predict(self, rows: Sequence[ModelRow]) -> list[torch.Tensor]:
        batch = guidance.stack(rows)
        samples = batch.samples
        pictures = [samples, *shown(batch.order)]
        output = self._transformer(
            hidden_states=torch.cat([packed(one) for one in pictures], dim=1),
            timestep=batch.timesteps.to(samples.dtype) / 1000,
            guidance=None,
            encoder_hidden_states=batch.texts,
            encoder_hidden_states_mask=batch.mask,
            img_shapes=[[(1, one.shape[-2] // 2, one.shape[-1] // 2) for one in pictures]] * len(samples),
            return_dict=False,
            **controlnets.residuals(batch.order, partial(self._read_control, batch), samples.dtype),
        )[0]
        drawn = output[:, : samples.shape[-2] * samples.shape[-1] // 4]
        return [unpacked(tokens, samples) for tokens in batch.guide(drawn, _as_long)]

    def _read_control(self, batch: Stacked, call: Call) -> Residuals:
        samples, mask = call.of(batch.samples), batch.mask
        said = call.network(
            hidden_states=packed(samples),
            controlnet_cond=packed(call.pictures),
            conditioning_scale=call.scales(3),
            timestep=batch.timesteps[call.rows].to(samples.dtype) / 1000,
            encoder_hidden_states=call.of(batch.texts),
            encoder_hidden_states_mask=None if mask is None else mask[call.rows],
            img_shapes=[[(1, samples.shape[-2] // 2, samples.shape[-1] // 2)]] * len(samples),
            return_dict=False,
        )
        return {"controlnet_block_samples": controlnets.spread(said, len(self._transformer.transformer_blocks))}

    def _encoded(self, text: str) -> torch.Tensor:
        embedding: torch.Tensor = self._pipe.encode_prompt(text, self._device, max_sequence_length=WORDS)[0]
        return embedding

    def _framed(self, text: str) -> str:
        return str(self._pipe.prompt_template_encode.format(text))


class QwenImageEdit(QwenImage):
    """A loaded QwenImageEditPipeline: of one picture, which is read as it is encoded."""

    def __init__(self, pipe: Any, device: torch.device) -> None:
        super().__init__(pipe, device, length=_UNLIMITED)

    def lay(self, own: Size) -> Layout:
        seen = Placement(size := _of_shape(own, _ENCODED), size)
        return Layout(seen, seen)

    def encode_shown(self, text: TextSpec, shown: Shown) -> Conditioning:
        """Raises INVALID_FIELD without a picture."""
        if not shown.references:
            raise invalid("references", "are none, and the model edits what it is shown", "give it a picture")
        seen = [Image.fromarray(one.read) for one in shown.references if one.read is not None]
        negative = self._read(text.negative_prompt or _NOTHING, seen) if self._is_guided(text) else None
        return Conditioning(self._read(text.prompt, seen), negative, text, mixes_lengths=True)

    def encode(self, text: TextSpec) -> Conditioning:
        return self.encode_shown(text, NOTHING)

    def _read(self, text: str, pictures: Sequence[Image.Image]) -> torch.Tensor:
        """1, tokens, features. Raises INVALID_FIELD for a text that has a place for a picture of its own."""
        if PLACE in text:
            raise invalid("prompt", f"has {PLACE}, which stands for a picture to the model", "leave it out")
        embedding: torch.Tensor = self._pipe.encode_prompt(text, list(pictures), self._device)[0]
        return embedding


class QwenImageEditPlus(QwenImageEdit):
    """A loaded QwenImageEditPlusPipeline: of several pictures, which are read smaller than they are encoded."""

    def lay(self, own: Size) -> Layout:
        encoded, read = _of_shape(own, _ENCODED), _of_shape(own, _READ)
        return Layout(Placement(encoded, encoded), Placement(read, read))


def _of_shape(own: Size, pixels: int) -> Size:
    """Raises INVALID_FIELD for a picture that its text encoder cannot read."""
    if max(own) > _MOST_NARROW * min(own):
        why = f"are too narrow: one has {own[0]}x{own[1]} pixels, and the model reads {_MOST_NARROW} to 1 at most"
        raise invalid("references", why, "cut it first")
    return in_shape(*own, pixels, SHOWN_UNIT)


def _as_long(without: torch.Tensor, text: torch.Tensor, scale: float) -> torch.Tensor:
    """Guided tokens, each as long as the one that has the text."""
    guided = guidance.extrapolated(without, text, scale)
    lengths = [torch.linalg.vector_norm(tokens, dim=-1, keepdim=True) for tokens in (text, guided)]
    as_long: torch.Tensor = guided * (lengths[0] / lengths[1])
    return as_long
