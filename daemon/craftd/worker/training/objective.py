"""The loss, by the model's own scheduler: epsilon, v-prediction, sample, or flow matching.

In the manner of diffusers' training scripts: noise first, then timesteps, both from the training's generator;
the mean of squared differences in fp32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from craft_protos.reasons import CraftError
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from diffusers.training_utils import compute_density_for_timestep_sampling, compute_snr
from torch.nn import functional

from craftd.worker.families import samplers

_snr: Any = compute_snr


@dataclass(frozen=True)
class Task:
    """Noised latents and what the model should say of them."""

    samples: torch.Tensor  # rows, channels, height, width
    timesteps: torch.Tensor  # rows
    targets: torch.Tensor
    weights: torch.Tensor | None = None  # rows

    def loss(self, output: torch.Tensor) -> torch.Tensor:
        errors = functional.mse_loss(output.float(), self.targets.float(), reduction="none")
        if self.weights is None:
            return errors.mean()
        return (errors.flatten(1).mean(dim=1) * self.weights).mean()


class Objective(Protocol):
    """Makes tasks of latents."""

    def task(self, latents: torch.Tensor, generator: torch.Generator) -> Task: ...


def of(scheduler: Any, min_snr_gamma: float) -> Objective:
    """For the model whose own scheduler that is. Raises UNTRAINABLE_MODEL."""
    if samplers.is_flow_matching(scheduler):
        return FlowMatching(FlowMatchEulerDiscreteScheduler.from_config(scheduler.config))
    if "beta_schedule" not in scheduler.config:  # EDM's and such: DDPM would fill in betas that are not the model's
        name = type(scheduler).__name__
        raise CraftError("UNTRAINABLE_MODEL", f"the model's {name} has no betas to noise by", "use another model")
    return Diffusion(DDPMScheduler.from_config(scheduler.config), min_snr_gamma)


class Diffusion:
    """Noise by a table of alphas; min-SNR weights where gamma is given (Hang et al. 2023)."""

    def __init__(self, scheduler: Any, min_snr_gamma: float) -> None:
        self._scheduler = scheduler
        self._gamma = min_snr_gamma
        self._kind = scheduler.config.prediction_type
        if self._kind not in ("epsilon", "v_prediction", "sample"):
            raise CraftError(
                "UNTRAINABLE_MODEL", f"the model predicts {self._kind}, for which there is no loss", "use another model"
            )

    def task(self, latents: torch.Tensor, generator: torch.Generator) -> Task:
        noise = torch.randn(latents.shape, generator=generator).to(latents.device)
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
        if not self._gamma:
            return None
        ratio: torch.Tensor = _snr(self._scheduler, timesteps)
        capped = ratio.clamp(max=self._gamma)
        weights: dict[str, torch.Tensor] = {
            "epsilon": capped / ratio,
            "v_prediction": capped / (ratio + 1),
            "sample": capped,
        }
        return weights[self._kind]


class FlowMatching:
    """Straight paths from noise to latents (Lipman et al. 2022); times by a logit-normal (Esser et al. 2024)."""

    def __init__(self, scheduler: Any) -> None:
        self._scheduler = scheduler

    def task(self, latents: torch.Tensor, generator: torch.Generator) -> Task:
        noise = torch.randn(latents.shape, generator=generator).to(latents.device)
        drawn = compute_density_for_timestep_sampling(
            "logit_normal", latents.shape[0], logit_mean=0.0, logit_std=1.0, generator=generator
        )
        places = (drawn * self._scheduler.config.num_train_timesteps).long()
        sigmas = self._scheduler.sigmas[places].to(latents.device).view(-1, 1, 1, 1)
        timesteps = self._scheduler.timesteps[places].to(latents.device)
        return Task((1 - sigmas) * latents + sigmas * noise, timesteps, noise - latents)
