"""A row's control picture, for a control model to read beside its denoising."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class RowControl:
    """A picture of a row, which that control model reads in these shares of the steps."""

    network: Any  # diffusers' ControlNetModel
    picture: torch.Tensor  # 1, 3, height, width in 0 to 1, on the network's device
    scale: float
    start: float
    end: float

    def counts_at(self, call: int, calls: int) -> bool:
        """At the model call of that number of so many, as diffusers' pipelines count them."""
        return self.scale != 0 and call / calls >= self.start and (call + 1) / calls <= self.end
