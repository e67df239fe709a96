"""Latents: which sizes a model has them for, what a picture's begin as, and a sketch of what they show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from craftd.architectures import sizes
from craftd.architectures.sizes import Sizes
from craftd.worker.families import samplers
from craftd.worker.families.autoencoders import Autoencoder
from craftd.worker.families.call_scheduler import CallScheduler
from craftd.worker.output.picture import Pixels

NO_MASK = ("is none, and the model was made for inpainting", "give a picture, and a mask of what is drawn anew")
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
    """A picture's latents where the schedule is set to begin: at the model call of number `first`."""
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(first)
    return with_noise(scheduler, start, noise, first)


def with_noise(scheduler: Any, latents: torch.Tensor, noise: torch.Tensor, call: int) -> torch.Tensor:
    """As noisy as that model call wants them."""
    timestep = scheduler.timesteps[call : call + 1]
    if isinstance(scheduler, CallScheduler):
        noisy: torch.Tensor = scheduler.noised(latents, noise, call)
    elif hasattr(scheduler, "scale_noise"):  # of flows
        noisy = scheduler.scale_noise(latents, timestep, noise)
    else:
        noisy = scheduler.add_noise(latents, noise, timestep)
    return noisy.to(noise.dtype)


@dataclass(frozen=True)
class Covered:
    """What a model that was made for inpainting is shown: a picture that is grey where it is drawn anew."""

    encoded: torch.Tensor  # what the autoencoder has made of it
    mask: torch.Tensor  # 1, 1, height, width in pixels: one where it is grey


@dataclass(frozen=True)
class Source:
    """What drawing begins from: what the autoencoder has made of a picture, and how much of it is drawn anew."""

    encoded: torch.Tensor
    strength: float
    mask: torch.Tensor | None = None  # 1, 1, height, width of the latents: one where they are drawn anew
    covered: Covered | None = None  # for models that were made for inpainting


@dataclass(frozen=True)
class Kept:
    """The latents that a mask keeps, under the noise that they have had from the beginning."""

    latents: torch.Tensor
    noise: torch.Tensor
    mask: torch.Tensor

    def put_back(self, drawn: torch.Tensor, scheduler: Any, following: int) -> torch.Tensor:
        """Where nothing is drawn anew, as noisy as the model call of that number wants them; after the last: as is."""
        kept = self.latents
        if following < len(scheduler.timesteps):
            kept = with_noise(scheduler, kept, self.noise, following)
        return ((1 - self.mask) * kept + self.mask * drawn).to(drawn.dtype)


@dataclass(frozen=True)
class Beginning:
    """A row before its first model call, which is the schedule's of number `first`."""

    latents: torch.Tensor  # 1, channels, height, width
    first: int = 0
    kept: Kept | None = None
    beside: torch.Tensor | None = None  # 1, channels, height, width: what the model is given with them at each call


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
