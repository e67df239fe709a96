"""A model's layers, and every name that LoRA files know them by.

The names are made from the layers that the model has, so a name resolves to one layer or to none:
diffusers' and peft's own, kohya's (dots as underscores, for diffusers' layer names and for the original
ones of SDXL, SD3 and FLUX.1), ComfyUI's, and the attention processors of old diffusers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import nn

from craftd.worker.lora import originals
from craftd.worker.lora.adapter import Layer

TEXT_ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")
_COMFY = {"text_encoder": "clip_l", "text_encoder_2": "clip_g"}
_OLD_ATTENTION = {"to_q": "to_q_lora", "to_k": "to_k_lora", "to_v": "to_v_lora", "to_out.0": "to_out_lora"}
_OLD_TEXT = {"q_proj": "to_q_lora", "k_proj": "to_k_lora", "v_proj": "to_v_lora", "out_proj": "to_out_lora"}


@dataclass(frozen=True)
class Place:
    """A layer, or the part of a file's outputs that is this layer's."""

    component: str
    layer: str
    outputs: slice | None = None  # of tensors that several layers share
    is_swapped: bool = False  # the original has the halves of its outputs the other way round


class Targets:
    """What a loaded pipeline has for LoRAs to change."""

    def __init__(self, pipe: Any) -> None:
        self.pipeline: type = type(pipe)
        self.components: dict[str, nn.Module] = dict(_components(pipe))
        self.layers: dict[str, dict[str, Layer]] = {
            name: {path: layer for path, layer in module.named_modules() if isinstance(layer, Layer)}
            for name, module in self.components.items()
        }

    @property
    def denoiser(self) -> str:
        """The component that is called at each step."""
        return next(iter(self.components))

    @cached_property
    def _places(self) -> dict[str, tuple[Place, ...]]:
        """By every name; made when the first LoRA comes, so that a model's first picture does not wait for it."""
        found: dict[str, tuple[Place, ...]] = {}
        for component in self.layers:
            for alias, places in self._aliases(component):
                found.setdefault(alias, places)
        return found

    def find(self, path: str) -> tuple[Place, ...]:
        """The layers that a file means by `path`; none where the model has no such."""
        return self._places.get(path, ())

    def layer(self, place: Place) -> Layer:
        return self.layers[place.component][place.layer]

    def _aliases(self, component: str) -> Iterator[tuple[str, tuple[Place, ...]]]:
        if component == self.denoiser:
            yield from self._denoiser_aliases(component)
        else:
            for layer in self.layers[component]:
                place = (Place(component, layer),)
                for alias in _text_aliases(component, layer, self._text_numbers(component)):
                    yield alias, place

    def _denoiser_aliases(self, component: str) -> Iterator[tuple[str, tuple[Place, ...]]]:
        for layer in self.layers[component]:
            place = (Place(component, layer),)
            for path in (layer, *_old_attention(layer)):
                yield f"{component}.{path}", place
                yield f"base_model.model.{path}", place
                yield path, place
            yield f"lora_{component}_{_flat(layer)}", place
            yield f"lora_unet_{_flat(layer)}", place
            yield f"diffusion_model.{layer}", place
        for original, parts in originals.names(self.components[component], self.layers[component]).items():
            places = tuple(Place(component, part.layer, part.outputs, part.is_swapped) for part in parts)
            yield f"lora_unet_{_flat(original)}", places
            yield f"diffusion_model.{original}", places
            yield original, places

    def _text_numbers(self, component: str) -> tuple[str, ...]:
        """As kohya counts them: T5 is always the third."""
        if "t5" in type(self.components[component]).__name__.lower():
            return ("te3",)
        return ("te", "te1") if component == "text_encoder" else ("te2",)


def _components(pipe: Any) -> Iterator[tuple[str, nn.Module]]:
    for name in ("transformer", "unet"):
        if isinstance(getattr(pipe, name, None), nn.Module):
            yield name, getattr(pipe, name)
            break
    for name in TEXT_ENCODERS:
        if isinstance(getattr(pipe, name, None), nn.Module):
            yield name, getattr(pipe, name)


def _text_aliases(component: str, layer: str, numbers: tuple[str, ...]) -> Iterator[str]:
    bare = layer.removeprefix("text_model.")
    full = bare if bare.startswith(("text_projection", "encoder.block")) else f"text_model.{bare}"
    parent, _, last = bare.rpartition(".")
    paths = {bare, full} | ({f"text_model.{parent}.{_OLD_TEXT[last]}"} if last in _OLD_TEXT else set())
    for path in paths:
        yield f"{component}.{path}"
    for number in numbers:
        yield f"lora_{number}_{_flat(full)}"
    comfy = "t5xxl" if "te3" in numbers else _COMFY.get(component, "")
    yield f"text_encoders.{comfy}.transformer.{full}"


def _old_attention(layer: str) -> Iterator[str]:
    for last, old in _OLD_ATTENTION.items():
        if layer.endswith(f".{last}"):
            yield f"{layer.removesuffix(last)}processor.{old}"


def _flat(path: str) -> str:
    return path.replace(".", "_")
