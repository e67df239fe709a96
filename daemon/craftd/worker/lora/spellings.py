"""Every name that LoRA files know a model's layers by.

The names are made from the layers that the model has, so a name resolves to these or to none: diffusers' and peft's
own, kohya's and LyCORIS' (dots as underscores), ComfyUI's, and the attention processors of old diffusers; each for
diffusers' layer names and for the original ones of Stable Diffusion, SD3 and FLUX.1.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from craftd.worker.lora import originals
from craftd.worker.lora.layout import Component, Layout

_DENOISER = ("unet", "transformer", "base_model.model", "diffusion_model", "model.diffusion_model")
_FLAT_DENOISER = ("lora_unet", "lora_transformer", "lycoris", "oft_unet")
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


Places = tuple[Place, ...]  # the layers that one of a file's is


class Spellings:
    """Looks up one model's layers by any name; made when its first LoRA comes."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._places: defaultdict[str, list[Places]] = defaultdict(list)
        for name, component in layout.components.items():
            spelt = _denoiser(name, component) if name == layout.denoiser else _text_encoder(name, component)
            for spelling, places in spelt:
                if places not in self._places[spelling]:
                    self._places[spelling].append(places)

    def find(self, path: str) -> list[Places]:
        """What a file may mean by `path`, the likeliest first: peft calls both text encoders' layers the same."""
        return self._places.get(path, [])


def _denoiser(name: str, component: Component) -> Iterator[tuple[str, Places]]:
    dotted = tuple(dict.fromkeys((name, *_DENOISER)))
    flat = tuple(dict.fromkeys((f"lora_{name}", *_FLAT_DENOISER)))
    for path, places in _paths(name, component):
        yield path, places
        for prefix in dotted:
            yield f"{prefix}.{path}", places
        for prefix in flat:
            yield f"{prefix}_{_flat(path)}", places


def _paths(name: str, component: Component) -> Iterator[tuple[str, Places]]:
    for layer in component.layers:
        for path in (layer, *_old_attention(layer)):
            yield path, (Place(name, layer),)
    for original, parts in originals.names(component).items():
        yield original, tuple(Place(name, part.layer, part.outputs, part.is_swapped) for part in parts)


def _text_encoder(name: str, component: Component) -> Iterator[tuple[str, Places]]:
    numbers = ("te3",) if component.is_t5 else ("te", "te1") if name == "text_encoder" else ("te2",)
    comfy = "t5xxl" if component.is_t5 else _COMFY.get(name, "")
    for layer in component.layers:
        places = (Place(name, layer),)
        bare = layer.removeprefix("text_model.")
        full = bare if bare.startswith(("text_projection", "encoder.block")) else f"text_model.{bare}"
        for path in dict.fromkeys((full, bare, *_old_text(bare))):
            yield f"{name}.{path}", places
            yield f"base_model.model.{path}", places
        for number in numbers:  # as kohya counts them: T5 is always the third
            yield f"lora_{number}_{_flat(full)}", places
        yield f"text_encoders.{comfy}.transformer.{full}", places


def _old_attention(layer: str) -> Iterator[str]:
    for last, old in _OLD_ATTENTION.items():
        if layer.endswith(f".{last}"):
            yield f"{layer.removesuffix(last)}processor.{old}"


def _old_text(layer: str) -> Iterator[str]:
    parent, _, last = layer.rpartition(".")
    if last in _OLD_TEXT:
        yield f"text_model.{parent}.{_OLD_TEXT[last]}"


def _flat(path: str) -> str:
    return path.replace(".", "_")
