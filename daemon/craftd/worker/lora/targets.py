"""A loaded model's layers, for LoRAs to change."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

from torch import nn

from craftd.worker.lora.layer import Layer
from craftd.worker.lora.layout import Component, Layout
from craftd.worker.lora.spellings import Place, Spellings

TEXT_ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")


class Targets:
    """What a loaded pipeline has for LoRAs to change."""

    def __init__(self, pipe: Any) -> None:
        self.pipeline: type = type(pipe)
        self.components: dict[str, nn.Module] = dict(_components(pipe))
        self.layers = {name: own_layers(module) for name, module in self.components.items()}

    @property
    def denoiser(self) -> str:
        """The component that is called at each step."""
        return next(iter(self.components))

    @cached_property
    def are_packed(self) -> bool:
        """Whether any of them does not hold its weight as numbers."""
        return any(layer.is_quantized for layers in self.layers.values() for layer in layers.values())

    @cached_property
    def spellings(self) -> Spellings:
        """Made when the first LoRA comes, so that a model's first picture does not wait for it."""
        return Spellings(layout_of(self.pipeline, self.components))

    def layer(self, place: Place) -> Layer:
        return self.layers[place.component][place.layer]


def layout_of(pipeline: type, components: dict[str, nn.Module]) -> Layout:
    """Of networks that may be on no device at all; the one that is called at each step comes first."""
    told = {name: component_of(module) for name, module in components.items()}
    return Layout(pipeline.__name__, told, hasattr(pipeline, "lora_state_dict"))


def component_of(network: nn.Module) -> Component:
    shapes = {path: layer.shape for path, layer in own_layers(network).items()}
    depth = getattr(getattr(network, "config", None), "layers_per_block", 0)
    return Component(type(network).__name__, shapes, depth if isinstance(depth, int) else 0)


def own_layers(network: nn.Module) -> dict[str, Layer]:
    return {path: layer for path, module in network.named_modules() if (layer := Layer.of(module)) is not None}


def _components(pipe: Any) -> Iterator[tuple[str, nn.Module]]:
    for name in ("transformer", "unet"):
        if isinstance(getattr(pipe, name, None), nn.Module):
            yield name, getattr(pipe, name)
            break
    for name in TEXT_ENCODERS:
        if isinstance(getattr(pipe, name, None), nn.Module):
            yield name, getattr(pipe, name)
