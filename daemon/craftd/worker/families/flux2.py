"""FLUX.2: latents are tokens already, and the words are three layers of a language model, side by side.

klein is guided by classifier-free guidance, unless it was distilled; dev is given the guidance scale, as FLUX.1 is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from craft_protos.generate import TextSpec
from craft_protos.reasons import invalid
from diffusers.pipelines.flux2.pipeline_flux2 import format_input
from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu

from craftd.worker.families import guidance
from craftd.worker.families.base import Conditioning, ModelRow
from craftd.worker.families.conversing import Conversing, of_one_message
from craftd.worker.families.flow import shown
from craftd.worker.inputs.fitting import Size, middle
from craftd.worker.inputs.references import Layout

_APART = 10  # in time, of the picture that is drawn and each that the model is shown
_MOST_PIXELS = 1024 * 1024  # of a picture that it is shown


class Flux2Klein(Conversing):
    """The flux2 family. `pipe` is a loaded Flux2KleinPipeline; its own loop is never used."""

    def __init__(self, pipe: Any, device: torch.device) -> None:
        super().__init__(pipe, device)
        self._is_distilled = bool(pipe.config.get("is_distilled"))

    def encode(self, text: TextSpec) -> Conditioning:
        """Raises INVALID_FIELD for a negative prompt where there is no guidance for it to work by."""
        if text.negative_prompt and self._is_distilled:
            why = "a FLUX.2 that was distilled to few steps does not take any"
            raise invalid("negative_prompt", why, "leave it out, and say what there should be")
        negative = self._text.embed(text.negative_prompt) if self._is_guided(text) else None
        return Conditioning(self._text.embed(text.prompt), negative, text)

    def lay(self, own: Size) -> Layout:
        """A larger picture is made smaller, then the middle is taken: sides are multiples of a token's."""
        scaled = own
        if own[0] * own[1] > _MOST_PIXELS:
            scale = math.sqrt(_MOST_PIXELS / (own[0] * own[1]))
            scaled = max(1, int(own[0] * scale)), max(1, int(own[1] * scale))
        return Layout(middle(scaled, self._factor))

    def remarks(self, text: TextSpec) -> Sequence[str]:
        unused = f"the guidance scale of {text.guidance_scale:g} does nothing: the model was distilled to need none"
        is_asked = self._is_distilled and text.guidance_scale > 1
        return [*super().remarks(text), *([unused] if is_asked else [])]

    def predict(self, rows: Sequence[ModelRow]) -> list[torch.Tensor]:
        batch = guidance.stack(rows)
        samples, texts = batch.samples, batch.texts
        pictures = [samples, *shown(batch.order)]
        output = self._transformer(
            hidden_states=torch.cat([one.flatten(2) for one in pictures], dim=2).mT.to(self._transformer.dtype),
            timestep=batch.timesteps.to(samples.dtype) / 1000,
            guidance=self._guidance(batch.order),
            encoder_hidden_states=texts,
            txt_ids=_text_places(texts),
            img_ids=torch.cat([_places(one, number * _APART) for number, one in enumerate(pictures)]),
            return_dict=False,
        )[0]
        return batch.guide(output[:, : samples[0, 0].numel()].mT.reshape(samples.shape))

    def _guidance(self, rows: Sequence[ModelRow]) -> torch.Tensor | None:
        """The guidance scale of each model row, for a network that is given it."""
        return None

    def _shift_exponent(self, tokens: int, steps: int) -> float:
        return float(compute_empirical_mu(tokens, steps))

    def _is_guided(self, text: TextSpec) -> bool:
        return super()._is_guided(text) and not self._is_distilled

    def _encoded(self, text: str) -> torch.Tensor:
        embedding: torch.Tensor = self._pipe.encode_prompt(text, self._device)[0]
        return embedding

    def _framed(self, text: str) -> str:
        return of_one_message(self._pipe.tokenizer, text, thinking=False)


class Flux2Dev(Flux2Klein):
    """The flux2-dev family. `pipe` is a loaded Flux2Pipeline, whose tokenizer stands where its processor did."""

    def encode(self, text: TextSpec) -> Conditioning:
        """Raises INVALID_FIELD for a negative prompt: without classifier-free guidance it could do nothing."""
        if text.negative_prompt:
            raise invalid(
                "negative_prompt", "FLUX.2 dev does not take any", "leave it out, and say what there should be"
            )
        return super().encode(text)

    def _guidance(self, rows: Sequence[ModelRow]) -> torch.Tensor:
        return self._on_device(tuple(row.conditioning.guidance_scale for row in rows), torch.float32)

    def _is_guided(self, text: TextSpec) -> bool:
        return False

    def _framed(self, text: str) -> str:
        conversation = format_input([text], self._pipe.system_message)[0]
        return str(self._pipe.tokenizer.apply_chat_template(conversation, tokenize=False))


def _text_places(texts: torch.Tensor) -> torch.Tensor:
    """tokens, 4: each token's number, last."""
    places = torch.zeros(texts.shape[1], 4, dtype=torch.long, device=texts.device)
    places[:, 3] = torch.arange(texts.shape[1], device=texts.device)
    return places


def _places(latents: torch.Tensor, time: int) -> torch.Tensor:
    """tokens, 4: the picture's time, row, column, nought; the rows of a batch share them."""
    height, width = latents.shape[-2:]
    places = torch.zeros(height, width, 4, dtype=torch.long, device=latents.device)
    places[..., 0] = time
    places[..., 1] = torch.arange(height, device=latents.device)[:, None]
    places[..., 2] = torch.arange(width, device=latents.device)
    return places.flatten(0, 1)
