"""A row's control picture, for a control model to read beside its denoising."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch.nn.functional import pad


@dataclass(frozen=True)
class RowControl:
    """A picture of a row, which that control model reads in these shares of the steps."""

    network: Any  # diffusers' ControlNetModel or one of its kin
    picture: torch.Tensor  # as its family encodes it for the network, on the network's device
    scale: float
    start: float
    end: float
    kind: str = ""  # what the picture shows, as the request says it

    @cached_property
    def features(self) -> list[torch.Tensor]:
        """What a T2I-adapter reads off the picture, which is the same at all steps: one for each of its levels."""
        grey = self.picture.mean(1, keepdim=True) if self.network.config.in_channels == 1 else self.picture
        height, width = grey.shape[-2:]
        unit = self.network.downscale_factor
        read: list[torch.Tensor] = self.network(pad(grey, (0, -width % unit, 0, -height % unit), "replicate"))
        return read

    def counts_at(self, call: int, calls: int) -> bool:
        """At the model call of that number of so many, as diffusers' pipelines count them."""
        return self.scale != 0 and call / calls >= self.start and (call + 1) / calls <= self.end


def sees_pixels(network: Any) -> bool:
    """Says whether a transformer's control model is shown a picture's pixels, and not its latents."""
    return getattr(network, "input_hint_block", None) is not None
