"""Latents: which sizes a model has them for, their first noise, and a sketch of what they show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from craftd.architectures import sizes
from craftd.architectures.sizes import Sizes
from craftd.worker.families import samplers
from craftd.worker.families.autoencoders import Autoencoder
from craftd.worker.output.picture import Pixels

_FITTED_SIDE = 16  # of the latents that a sketch is fitted to
_COARSE_SIDE = 4  # of the noise that they are made of; more channels want more of it
_FEW_CHANNELS = 8


def sizes_of(pipe: Any) -> Sizes:
    """What a loaded pipeline can draw, by the configurations that the front reads before queueing."""
    parts = {name: getattr(pipe, name, None) for name in sizes.PARTS}
    return sizes.sizes({name: _configuration(part) for name, part in parts.items()})


def _configuration(part: Any) -> dict[str, Any]:
    return {} if part is None else {**part.config, "_class_name": type(part).__name__}


def first_call(scheduler: Any, strength: float) -> int:
    """The model calls that image-to-image leaves out; rounded as the pipelines of either kind round."""
    steps = int(scheduler.num_inference_steps)
    done = min(steps * strength, steps)
    left_out = int(steps - done) if samplers.is_flow_matching(scheduler) else steps - int(done)
    return left_out * int(scheduler.order)


def noised(scheduler: Any, start: torch.Tensor, noise: torch.Tensor, first: int) -> torch.Tensor:
    """A picture's latents under the noise of the timestep that is computed first."""
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(first)
    timestep = scheduler.timesteps[first : first + 1]
    is_flow = hasattr(scheduler, "scale_noise")
    noised = scheduler.scale_noise(start, timestep, noise) if is_flow else scheduler.add_noise(start, noise, timestep)
    latents: torch.Tensor = noised.to(noise.dtype)
    return latents


@dataclass(frozen=True)
class LinearSketch:
    """One pixel for each latent pixel. `weights` is channels + 1 by 3; the last row is the bias."""

    weights: torch.Tensor

    @classmethod
    def fit(cls, autoencoder: Autoencoder, like: torch.Tensor) -> LinearSketch:
        """Least squares over what it makes of smooth random latents, `like` a row's; takes one small decode.

        `draw` then takes the autoencoder's own latents.
        """
        generator = torch.Generator("cpu").manual_seed(0)
        side = _COARSE_SIDE if autoencoder.own_channels <= _FEW_CHANNELS else _FITTED_SIDE // 2
        coarse = torch.randn(1, autoencoder.channels, side, side, generator=generator)
        latents = torch.nn.functional.interpolate(coarse, size=(_FITTED_SIDE, _FITTED_SIDE), mode="bilinear")
        own = autoencoder.own(latents.to(like))
        image = autoencoder.decode_own(own).float().cpu()
        colours = torch.nn.functional.adaptive_avg_pool2d(image, (own.shape[-2], own.shape[-1]))
        return cls(torch.linalg.lstsq(_flat(own.float().cpu()), colours.flatten(2)[0].T).solution)

    def draw(self, latents: torch.Tensor) -> Pixels:
        """The colours of one row's latents, in the autoencoder's scale."""
        flat = _flat(latents.float().cpu()) @ self.weights
        image = flat.T.reshape(3, *latents.shape[-2:])
        pixels: Pixels = ((image / 2 + 0.5).clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
        return pixels


def _flat(latents: torch.Tensor) -> torch.Tensor:
    values = latents.flatten(2)[0].T
    return torch.cat([values, torch.ones(len(values), 1)], dim=1)
