"""What the flow-matching transformers have in common: schedules that follow from the size, latents, memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from craftd.worker.families import controls, noise_levels, samplers
from craftd.worker.families.base import Family, ModelRow
from craftd.worker.families.samplers import Scheduler

_PATCH = 2  # latent pixels along a transformer token's side


class FlowMatching(Family):
    """A loaded pipeline of such a model; `patch` is the side of a token, in pixels of the latents."""

    _begins = False  # whether its pipeline counts from the first timestep, whichever that is

    def __init__(self, pipe: Any, device: torch.device, *, patch: int = _PATCH) -> None:
        super().__init__(pipe, device)
        self._transformer = pipe.transformer
        self._token_side = int(pipe.vae_scale_factor) * patch

    def schedule(self, sampler: str, steps: int, width: int, height: int) -> Scheduler:
        own: Scheduler = self._pipe.scheduler
        given: dict[str, Any] = {}
        shift = None
        if own.config.get("use_dynamic_shifting"):
            tokens = (width // self._token_side) * (height // self._token_side)
            exponent = self._shift_exponent(tokens, steps)
            given["mu"] = exponent
            is_linear = own.config.get("time_shift_type") == "linear"
            shift = exponent if is_linear else math.exp(exponent)
        scheduler = samplers.build(sampler, own, shift, spaces=True)
        if not scheduler.config.get("use_flow_sigmas"):
            given |= noise_levels.of_flow(sampler, steps) or self._sigmas(steps)
        samplers.spread(scheduler, steps, begins=self._begins, **given)
        return scheduler

    def encode_control(self, network: Any, picture: torch.Tensor) -> torch.Tensor:
        """In -1 to 1; to a control model that has no layers of its own for it, as latents."""
        values = picture * 2 - 1
        sees_pixels = controls.sees_pixels(network)
        return super().encode_control(network, values) if sees_pixels else self.encode_start(values)

    def draw_control(self, network: Any, encoded: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        if controls.sees_pixels(network):
            return encoded
        return self._autoencoder.drawn(encoded, generator).to(network.dtype)

    def _shift_exponent(self, tokens: int, steps: int) -> float:
        """Larger pictures spend more steps in the noise (Esser et al. 2024, section 5.3.2): by a line."""
        config = self._pipe.scheduler.config
        least, largest = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
        low, high = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
        slope = (high - low) / (largest - least)
        return float(tokens * slope + low - slope * least)

    def _sigmas(self, steps: int) -> dict[str, Any]:
        """Those that the pipeline has of its own, for the schedulers that take any."""
        return {}


class EvenlySpaced(FlowMatching):
    """A loaded pipeline that lays out the noise levels itself, evenly before they are shifted."""

    _begins = True

    def _sigmas(self, steps: int) -> dict[str, Any]:
        return {"sigmas": np.linspace(1.0, 1 / steps, steps)}


def packed(latents: torch.Tensor) -> torch.Tensor:
    """rows, channels, height, width -> rows, tokens, 4 channels: a token is two by two latent pixels."""
    rows, channels, height, width = latents.shape
    patches = latents.view(rows, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return patches.reshape(rows, (height // 2) * (width // 2), channels * 4)


def shown(rows: Sequence[ModelRow]) -> list[torch.Tensor]:
    """The latents of each picture that the rows are shown, side by side; a group's have as many, of equal sizes."""
    return [torch.cat(alike) for alike in zip(*(row.references for row in rows), strict=True)]


def unpacked(tokens: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """The other way round; `like`: latents of that shape, but for their number of rows."""
    _, channels, height, width = like.shape
    patches = tokens.view(-1, height // 2, width // 2, channels, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return patches.reshape(-1, channels, height, width)


def places(latents: torch.Tensor, kind: int) -> torch.Tensor:
    """tokens, 3: nought or one, row and column of each token; the rows of a batch share them."""
    height, width = (side // 2 for side in latents.shape[-2:])
    down = torch.arange(height, device=latents.device).repeat_interleave(width)
    across = torch.arange(width, device=latents.device).repeat(height)
    return torch.stack([torch.full_like(down, kind), down, across], dim=1).to(latents.dtype)
