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
from craftd.worker.families import controlnets, controls
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
        """Raises INVALID_FIELD for a negative prompt: without classifier-free guidance it could do nothing."""
        if text.negative_prompt:
            raise invalid("negative_prompt", "FLUX.1 does not take any", "leave it out, and say what there should be")
        pooled = self._clip.pooled(self._clip.encode(text.prompt))
        return Conditioning(self._t5.embed(text.prompt), None, text, pooled)

    def remarks(self, text: TextSpec) -> Sequence[str]:
        return self._t5.remarks({"prompt": text.prompt})

    def order(self, rows: Sequence[ModelRow]) -> Sequence[ModelRow]:
        return rows

    def predict(self, rows: Sequence[ModelRow]) -> list[torch.Tensor]:
        samples, pictures = torch.cat([row.sample for row in rows]), shown(rows)
        texts = torch.cat([row.conditioning.positive for row in rows])
        scales = [row.conditioning.guidance_scale for row in rows]
        of_rows = {
            "hidden_states": packed(samples),
            "timestep": torch.stack([row.timestep.to(samples.dtype) for row in rows]) / 1000,
            "guidance": torch.tensor(scales, device=self._device, dtype=torch.float32),
            "pooled_projections": torch.cat([_pooled(row) for row in rows]),
            "encoder_hidden_states": texts,
        }
        words = torch.zeros(texts.shape[1], 3, device=self._device, dtype=texts.dtype)
        read = partial(self._read_control, of_rows, {"txt_ids": words, "img_ids": places(samples, 0)})
        output = self._transformer(
            **_guided(self._transformer, of_rows)
            | {"hidden_states": torch.cat([packed(one) for one in (_with_beside(samples, rows), *pictures)], dim=1)},
            txt_ids=words,
            img_ids=torch.cat([places(one, min(number, 1)) for number, one in enumerate((samples, *pictures))]),
            return_dict=False,
            **controlnets.residuals(rows, read, samples.dtype),
        )[0]
        return list(torch.split(unpacked(output[:, : packed(samples).shape[1]], samples), 1))

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


def _with_beside(samples: torch.Tensor, rows: Sequence[ModelRow]) -> torch.Tensor:
    beside = [row.beside for row in rows if row.beside is not None]
    return torch.cat([samples, torch.cat(beside)], dim=1) if beside else samples


def _pooled(row: ModelRow) -> torch.Tensor:
    assert row.conditioning.pooled is not None
    return row.conditioning.pooled
