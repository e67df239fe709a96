"""The loss, by the model's own scheduler: epsilon, v-prediction, sample, or flow matching.

In the manner of diffusers' training scripts: noise first, then timesteps, both from the training's generator;
the mean of squared differences in fp32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from craft_protos.reasons import CraftError, invalid
from craft_protos.train import TrainSpec
from craft_protos.train_options import LOGIT_NORMAL, MODE, UNIFORM
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from diffusers.training_utils import compute_density_for_timestep_sampling, compute_snr
from torch.nn import functional

from craftd.worker.families import samplers

_snr: Any = compute_snr
_MOST_SNR = 1000.0  # of debiased weights: without noise it has no end
_MODE_SCALE = 1.29  # Esser et al. 2024
_SAMPLINGS = {"": "logit_normal", LOGIT_NORMAL: "logit_normal", UNIFORM: "none", MODE: "mode"}
_FLOWS = ("timestep_sampling", "timestep_shift", "logit_mean", "logit_std")
_DIFFUSIONS = ("debiased",)


@dataclass(frozen=True)
class Task:
    """Noised latents and what the model should say of them."""

    samples: torch.Tensor  # rows, channels, height, width
    timesteps: torch.Tensor  # rows
    targets: torch.Tensor
    weights: torch.Tensor | None = None  # rows

    def loss(self, output: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """`mask`: how much each place of the latents counts: the mean is that of all places, as in kohya's scripts."""
        errors = functional.mse_loss(output.float(), self.targets.float(), reduction="none")
        errors = errors if mask is None else errors * mask
        if self.weights is None:
            return errors.mean()
        return (errors.flatten(1).mean(dim=1) * self.weights).mean()


class Objective(Protocol):
    """Makes tasks of latents."""

    def task(self, latents: torch.Tensor, generator: torch.Generator) -> Task: ...


def of(scheduler: Any, recipe: TrainSpec) -> Objective:
    """For the model whose own scheduler that is. Raises UNTRAINABLE_MODEL, and INVALID_FIELD for the other kind's."""
    is_flow = samplers.is_flow_matching(scheduler)
    _check_kind(recipe, _DIFFUSIONS if is_flow else _FLOWS, "flow matching" if is_flow else "diffusion")
    if is_flow:
        own = {"shift": recipe.timestep_shift, "use_dynamic_shifting": False} if recipe.timestep_shift else {}
        return FlowMatching(FlowMatchEulerDiscreteScheduler.from_config(scheduler.config, **own), recipe)
    if "beta_schedule" not in scheduler.config:  # EDM's and such: DDPM would fill in betas that are not the model's
        name = type(scheduler).__name__
        raise CraftError("UNTRAINABLE_MODEL", f"the model's {name} has no betas to noise by", "use another model")
    return Diffusion(DDPMScheduler.from_config(scheduler.config), recipe)


def _check_kind(recipe: TrainSpec, others: tuple[str, ...], kind: str) -> None:
    for name in others:
        if name in recipe.chosen:
            raise invalid(name, f"means nothing to {kind}, which the model was trained by", "leave it out")


def noise_like(latents: torch.Tensor, recipe: TrainSpec, generator: torch.Generator) -> torch.Tensor:
    """Drawn on the CPU: plain noise, coarser noise over it, and a channel's own brightness (Whitaker 2023; Guttenberg
    2023).
    """
    noise = torch.randn(latents.shape, generator=generator)
    if recipe.multires_noise:
        noise = _coarser(noise, recipe, generator)
    if recipe.noise_offset:
        noise = noise + recipe.noise_offset * torch.randn((*latents.shape[:2], 1, 1), generator=generator)
    return noise.to(latents.device)


def _coarser(noise: torch.Tensor, recipe: TrainSpec, generator: torch.Generator) -> torch.Tensor:
    """Each time 2 to 4 times as coarse as the last, to a single number at most; as wide as plain noise again."""
    rows, channels, height, width = noise.shape
    for i in range(recipe.multires_noise):
        ratio = float(torch.rand((), generator=generator)) * 2 + 2
        size = max(1, int(height / ratio**i)), max(1, int(width / ratio**i))
        coarse = torch.randn((rows, channels, *size), generator=generator)
        stretched = functional.interpolate(coarse, (height, width), mode="bilinear")
        noise = noise + stretched * recipe.multires_discount**i
        if 1 in size:
            break
    return noise / noise.std()


class Diffusion:
    """Noise by a table of alphas; min-SNR weights where gamma is given (Hang et al. 2023), or debiased ones (Yu et al.
    2023).
    """

    def __init__(self, scheduler: Any, recipe: TrainSpec) -> None:
        self._scheduler = scheduler
        self._recipe = recipe
        self._kind = scheduler.config.prediction_type
        if self._kind not in ("epsilon", "v_prediction", "sample"):
            raise CraftError(
                "UNTRAINABLE_MODEL", f"the model predicts {self._kind}, for which there is no loss", "use another model"
            )

    def task(self, latents: torch.Tensor, generator: torch.Generator) -> Task:
        noise = noise_like(latents, self._recipe, generator)
        count = self._scheduler.config.num_train_timesteps
        timesteps = torch.randint(0, count, (latents.shape[0],), generator=generator).to(latents.device)
        samples = self._scheduler.add_noise(latents, noise, timesteps)
        return Task(samples, timesteps, self._targets(latents, noise, timesteps), self._weights(timesteps))

    def _targets(self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        if self._kind == "v_prediction":
            velocity: torch.Tensor = self._scheduler.get_velocity(latents, noise, timesteps)
            return velocity
        return noise if self._kind == "epsilon" else latents

    def _weights(self, timesteps: torch.Tensor) -> torch.Tensor | None:
        gamma = self._recipe.min_snr_gamma
        if not gamma and not self._recipe.debiased:
            return None
        ratio: torch.Tensor = _snr(self._scheduler, timesteps)
        if self._recipe.debiased:
            ratio = ratio.clamp(max=_MOST_SNR)
            return 1 / (ratio + 1) if self._kind == "v_prediction" else ratio.rsqrt()
        capped = ratio.clamp(max=gamma)
        weights: dict[str, torch.Tensor] = {
            "epsilon": capped / ratio,
            "v_prediction": capped / (ratio + 1),
            "sample": capped,
        }
        return weights[self._kind]


class FlowMatching:
    """Straight paths from noise to latents (Lipman et al. 2022); times by a logit-normal (Esser et al. 2024)."""

    def __init__(self, scheduler: Any, recipe: TrainSpec) -> None:
        self._scheduler = scheduler
        self._recipe = recipe

    def task(self, latents: torch.Tensor, generator: torch.Generator) -> Task:
        recipe = self._recipe
        noise = noise_like(latents, recipe, generator)
        drawn = compute_density_for_timestep_sampling(
            _SAMPLINGS[recipe.timestep_sampling],
            latents.shape[0],
            logit_mean=recipe.logit_mean,
            logit_std=recipe.logit_std,
            mode_scale=_MODE_SCALE,
            generator=generator,
        )
        places = (drawn * self._scheduler.config.num_train_timesteps).long()
        sigmas = self._scheduler.sigmas[places].to(latents.device).view(-1, 1, 1, 1)
        timesteps = self._scheduler.timesteps[places].to(latents.device)
        return Task((1 - sigmas) * latents + sigmas * noise, timesteps, noise - latents)
