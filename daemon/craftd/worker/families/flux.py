"""FLUX.1: the guidance scale goes into the model; CLIP gives it the prompt as a whole, T5 the words.

Latents are kept as pictures and packed into tokens for the transformer alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from craft_protos.generate import TextSpec
from craft_protos.reasons import invalid

from craftd.architectures.controls import FLUX_MODES
from craftd.architectures.rows.flows import FLUX_KONTEXT as KONTEXT
from craftd.worker.families import controlnets, controls, guidance
from craftd.worker.families.base import Conditioning, ModelRow, TextEncoder
from craftd.worker.families.controlnets import Call, Residuals
from craftd.worker.families.flow import EvenlySpaced, packed, places, shown, unpacked
from craftd.worker.families.latents import Covered, Source
from craftd.worker.families.text import PooledClipText, T5Text
from craftd.worker.inputs.fitting import Placement, Size
from craftd.worker.inputs.references import Layout

_WORDS = 512  # tokens


class Flux(EvenlySpaced):
    """The flux family. `pipe` is a loaded FluxPipeline or one of its kin; its own loop is never used."""

    def __init__(self, pipe: Any, device: torch.device) -> None:
        super().__init__(pipe, device)
        self._clip = PooledClipText(pipe.tokenizer, pipe.text_encoder, device)
        self._t5 = T5Text(pipe.tokenizer_2, pipe.text_encoder_2, device, length=_WORDS)

    @property
    def texts(self) -> Sequence[TextEncoder]:
        return [self._clip, self._t5]

    def encode(self, text: TextSpec) -> Conditioning:
        """Raises INVALID_FIELD for a negative prompt without guidance by it, which would do nothing."""
        positive, pooled = self._read(text.prompt)
        if text.true_cfg_scale > 1:
            negative, negative_pooled = self._read(text.negative_prompt)
            return Conditioning(positive, negative, text, pooled, negative_pooled)
        if text.negative_prompt:
            why = "does nothing to FLUX.1 without guidance by it"
            raise invalid("negative_prompt", why, "add --true-cfg 4, which takes twice as long, or leave it out")
        return Conditioning(positive, None, text, pooled)

    def _read(self, prompt: str) -> tuple[torch.Tensor, torch.Tensor]:
        """1, tokens, features, of T5; and 1, features, of CLIP."""
        return self._t5.embed(prompt), self._clip.pooled(self._clip.encode(prompt))

    def remarks(self, text: TextSpec) -> Sequence[str]:
        return self._t5.remarks({"prompt": text.prompt, "negative prompt": text.negative_prompt})

    def order(self, rows: Sequence[ModelRow]) -> Sequence[ModelRow]:
        return guidance.order(rows)

    def predict(self, rows: Sequence[ModelRow]) -> list[torch.Tensor]:
        batch = guidance.stack(rows)
        samples, pictures, texts = batch.samples, shown(batch.order), batch.texts
        scales = tuple(row.conditioning.guidance_scale for row in batch.order)
        of_rows: dict[str, Any] = {
            "hidden_states": packed(samples),
            "timestep": batch.timesteps.to(samples.dtype) / 1000,
            "guidance": self._on_device(scales, torch.float32),
            "pooled_projections": batch.pooled,
            "encoder_hidden_states": texts,
        }
        words = torch.zeros(texts.shape[1], 3, device=self._device, dtype=texts.dtype)
        read = partial(self._read_control, of_rows, {"txt_ids": words, "img_ids": places(samples, 0)})
        output = self._transformer(
            **_guided(self._transformer, of_rows)
            | {"hidden_states": torch.cat([packed(one) for one in (batch.inputs, *pictures)], dim=1)},
            txt_ids=words,
            img_ids=torch.cat([places(one, min(number, 1)) for number, one in enumerate((samples, *pictures))]),
            return_dict=False,
            **controlnets.residuals(batch.order, read, samples.dtype),
        )[0]
        return batch.guide(unpacked(output[:, : packed(samples).shape[1]], samples))

    def _read_control(
        self, of_rows: Mapping[str, torch.Tensor], where: Mapping[str, torch.Tensor], call: Call
    ) -> Residuals:
        network = call.network
        sees_pixels = controls.sees_pixels(network)
        given = {name: call.of(one) for name, one in of_rows.items()}
        given["timestep"], given["guidance"] = (of_rows[name][call.rows] for name in ("timestep", "guidance"))
        said = network(
            **_guided(network, given),
            **where,
            controlnet_cond=call.pictures if sees_pixels else packed(call.pictures),
            controlnet_mode=call.modes(FLUX_MODES) if network.union else None,
            conditioning_scale=call.scales(3),
            return_dict=False,
        )
        blocks = len(self._transformer.transformer_blocks), len(self._transformer.single_transformer_blocks)
        double, single = (controlnets.spread(*one, repeats=sees_pixels) for one in zip(said, blocks, strict=True))
        return {"controlnet_block_samples": double, "controlnet_single_block_samples": single}


class FluxFill(Flux):
    """FLUX.1 Fill, which inpaints: it is given the covered picture, and the mask pixel by pixel."""

    @property
    def inpaints(self) -> bool:
        return True

    def _beside(self, source: Source, covered: Covered, seen: torch.Tensor) -> torch.Tensor:
        pixels = torch.nn.functional.pixel_unshuffle(covered.mask.to(seen), self._factor)
        return torch.cat([seen, pixels], dim=1)


class FluxKontext(Flux):
    """FLUX.1 Kontext, which is shown the picture that it edits, in the size of its training that is most alike."""

    def lay(self, own: Size) -> Layout:
        size = KONTEXT.nearest_in_shape(*own)
        return Layout(Placement(size, size))


def _guided(network: Any, given: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """What a network of FLUX.1's is given, without guidance where it takes none."""
    return {**given} if network.config.guidance_embeds else {**given, "guidance": None}
