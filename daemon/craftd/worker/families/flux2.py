"""FLUX.2: latents are tokens already, and the words are three layers of a language model, side by side.

klein is guided by classifier-free guidance, unless it was distilled; dev takes the guidance scale as FLUX.1 does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from craft_protos.generate import TextSpec
from craft_protos.reasons import invalid
from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu

from craftd.worker.families import guidance
from craftd.worker.families.base import Conditioning, ModelRow
from craftd.worker.families.conversing import Conversing, of_one_message


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

    def remarks(self, text: TextSpec) -> Sequence[str]:
        unused = f"the guidance scale of {text.guidance_scale:g} does nothing: the model was distilled to need none"
        is_asked = self._is_distilled and text.guidance_scale > 1
        return [*super().remarks(text), *([unused] if is_asked else [])]

    def predict(self, rows: Sequence[ModelRow]) -> list[torch.Tensor]:
        batch = guidance.stack(rows)
        samples, texts = batch.samples, batch.texts
        output = self._transformer(
            hidden_states=samples.flatten(2).mT.to(self._transformer.dtype),
            timestep=batch.timesteps.to(samples.dtype) / 1000,
            guidance=None,
            encoder_hidden_states=texts,
            txt_ids=_text_places(texts),
            img_ids=_places(samples),
            return_dict=False,
        )[0]
        return batch.guide(output.mT.reshape(samples.shape))

    def _shift_exponent(self, tokens: int, steps: int) -> float:
        return float(compute_empirical_mu(tokens, steps))

    def _is_guided(self, text: TextSpec) -> bool:
        return super()._is_guided(text) and not self._is_distilled

    def _encoded(self, text: str) -> torch.Tensor:
        embedding: torch.Tensor = self._pipe.encode_prompt(text, self._device)[0]
        return embedding

    def _framed(self, text: str) -> str:
        return of_one_message(self._pipe.tokenizer, text, thinking=False)


def _text_places(texts: torch.Tensor) -> torch.Tensor:
    """tokens, 4: each token's number, last."""
    places = torch.zeros(texts.shape[1], 4, dtype=torch.long, device=texts.device)
    places[:, 3] = torch.arange(texts.shape[1], device=texts.device)
    return places


def _places(latents: torch.Tensor) -> torch.Tensor:
    """tokens, 4: nought, row, column, nought; the rows of a batch share them."""
    height, width = latents.shape[-2:]
    places = torch.zeros(height, width, 4, dtype=torch.long, device=latents.device)
    places[..., 1] = torch.arange(height, device=latents.device)[:, None]
    places[..., 2] = torch.arange(width, device=latents.device)
    return places.flatten(0, 1)
