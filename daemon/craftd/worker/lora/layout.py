"""What a model has for LoRAs to change: the names and shapes of its layers, without the model.

The engine makes it of the model that it has loaded, an inspecting process of a model's configurations.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from craftd.architectures import detect
from craftd.architectures.architecture import Architecture

_CROSS = (".attn2.to_k", ".attn2.to_v")

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Component:
    """One network: its class, and the shapes of the weights of its linear layers and convolutions."""

    kind: str  # the class's name
    layers: Mapping[str, Shape]
    depth: int = 0  # a UNet's resnets a block, where all blocks have as many

    @property
    def is_t5(self) -> bool:
        return "t5" in self.kind.lower()


@dataclass(frozen=True)
class Layout:
    """The networks that LoRAs change: first the one that is called at each step, then the text encoders."""

    pipeline: str  # diffusers' class
    components: Mapping[str, Component]
    has_converter: bool = False  # diffusers knows LoRAs for it, perhaps in forms that craft does not

    @property
    def denoiser(self) -> str:
        return next(iter(self.components))

    @cached_property
    def architecture(self) -> Architecture:
        own = self.components[self.denoiser]
        widths = (shape[1] for path, shape in own.layers.items() if path.endswith(_CROSS) and len(shape) > 1)
        return detect.of_network(own.kind, next(widths, 0))

    def to_json(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes) -> Layout:
        told: dict[str, Any] = json.loads(text)
        components = {
            name: Component(one["kind"], {path: tuple(shape) for path, shape in one["layers"].items()}, one["depth"])
            for name, one in told["components"].items()
        }
        return cls(told["pipeline"], components, told["has_converter"])
