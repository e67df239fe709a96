"""A scheduler, as diffusers has them, of a sampler of `k_samplers`: the samplers ask for model calls one by one."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from diffusers.utils.torch_utils import randn_tensor

from craftd.worker.families import k_samplers
from craftd.worker.families.k_samplers import Sampling, Seen


class CallScheduler(EulerDiscreteScheduler):
    """Steps of a sampler over the noise levels that Euler's method has with the same options.

    `timesteps` are those of the model calls; `sigmas` their levels.
    """

    sampler: ClassVar[Any]  # of `k_samplers`
    order = 1
    is_adaptive = False  # its timesteps become known as it goes
    spans = False  # it goes from the first level to the model's least, by levels of its own
    wants_unguided = False
    config: Any
    _running: Sampling | None

    def set_timesteps(self, num_inference_steps: int, device: Any = None) -> None:  # type: ignore[override]
        super().set_timesteps(num_inference_steps, device=device)
        self.levels = [float(level) for level in self.sigmas]
        self._log_levels = np.log((((1 - self.alphas_cumprod) / self.alphas_cumprod) ** 0.5).cpu().numpy())
        if self.spans:
            self.levels[-1] = float(np.exp(self._log_levels[0]))
        self._device = device
        self._plan(0)

    @property
    def init_noise_sigma(self) -> float:
        most = self.levels[0]
        return most if self.config.timestep_spacing in ("linspace", "trailing") else (most**2 + 1) ** 0.5

    @property
    def step_index(self) -> int:
        """The model call that comes next."""
        return self._call

    def set_begin_index(self, begin_index: int = 0) -> None:
        """The model call to begin with, of the first call of a step; those before it are not made."""
        super().set_begin_index(begin_index)
        self._plan(begin_index)

    def counted_steps(self, calls: int) -> int:
        """Steps that are done after so many calls, where `is_adaptive`: by how much noise is gone."""
        whole = np.log(self.levels[0] / self.levels[-1])
        gone = np.log(self.levels[0] / float(self.sigmas[calls]))
        return int(gone / whole * (len(self.levels) - 1))

    def noised(self, latents: torch.Tensor, noise: torch.Tensor, call: int) -> torch.Tensor:
        """As noisy as that model call wants them."""
        return latents + noise * float(self.sigmas[call])

    def scale_model_input(self, sample: torch.Tensor, timestep: Any) -> torch.Tensor:
        return sample / math.sqrt(float(self.sigmas[self._call]) ** 2 + 1)

    def step(  # type: ignore[override]  # noqa: PLR0917
        self,
        model_output: torch.Tensor,
        timestep: Any,
        sample: torch.Tensor,
        generator: torch.Generator | None = None,
        return_dict: bool = True,
        unguided: torch.Tensor | None = None,
    ) -> Any:
        """Tell the sampler what the model says; returns the latents of the next call, as a tuple."""
        x, level = sample.float(), float(self.sigmas[self._call])
        clean, without = (
            None if output is None else self._clean(x, output.float(), level) for output in (model_output, unguided)
        )
        if self._running is None:
            self._running = self._begin(lambda: _noise(x, generator))
            next(self._running)
        try:
            x, following = self._running.send(Seen(x, clean, without))
        except StopIteration as end:
            x, following = end.value, 0.0
        self._call += 1
        if self.is_adaptive and following:
            known = len(self.timesteps)
            self.timesteps = torch.cat([self.timesteps, self._timesteps([following])])
            self.sigmas = torch.cat([self.sigmas[:known], torch.tensor([following, 0.0], dtype=torch.float64)])
        return (x.to(model_output.dtype),)

    def _begin(self, noise: k_samplers.Noise) -> Sampling:
        running: Sampling = type(self).sampler(self.levels[self._first // self.order :], noise)
        return running

    def _plan(self, first: int) -> None:
        """Ask the sampler for its calls, with numbers in place of latents."""
        self._first = self._call = first
        self._running = None
        asking = self._begin(lambda: 0.0)
        asked = [next(asking)[1]]
        while not self.is_adaptive:
            try:
                asked.append(asking.send(Seen(0.0, 0.0, 0.0))[1])
            except StopIteration:
                break
        asked = [self.levels[0]] * first + asked
        self.timesteps = self._timesteps(asked)
        self.sigmas = torch.tensor([*asked, 0.0], dtype=torch.float64)

    def _timesteps(self, levels: list[float]) -> torch.Tensor:
        found = self._sigma_to_t(np.array(levels), self._log_levels)
        return torch.tensor(found, dtype=torch.float32, device=self._device)

    def _clean(self, x: torch.Tensor, output: torch.Tensor, level: float) -> torch.Tensor:
        match self.config.prediction_type:
            case "epsilon":
                return x - level * output
            case "v_prediction":
                return x / (level**2 + 1) - level / math.sqrt(level**2 + 1) * output
            case _:
                return output


class Dpmpp2sAncestralScheduler(CallScheduler):
    sampler, order = k_samplers.dpmpp_2s_ancestral, 2


class DpmppSdeScheduler(CallScheduler):
    sampler, order = k_samplers.dpmpp_sde, 2


class Dpmpp3mSdeScheduler(CallScheduler):
    sampler = k_samplers.dpmpp_3m_sde


class RestartScheduler(CallScheduler):
    sampler, order = k_samplers.restart, 2


class ResMultistepScheduler(CallScheduler):
    sampler = k_samplers.res_multistep


class DdimCfgPpScheduler(CallScheduler):
    sampler, wants_unguided = k_samplers.ddim_cfg_pp, True


class LcmLevelsScheduler(CallScheduler):
    sampler = k_samplers.lcm


class DpmFastScheduler(CallScheduler):
    sampler, spans = k_samplers.dpm_fast, True


class DpmAdaptiveScheduler(CallScheduler):
    sampler, spans, is_adaptive = k_samplers.dpm_adaptive, True, True


KINDS = {
    kind.__name__: kind
    for kind in (
        *(Dpmpp2sAncestralScheduler, DpmppSdeScheduler, Dpmpp3mSdeScheduler, RestartScheduler),
        *(ResMultistepScheduler, DdimCfgPpScheduler, LcmLevelsScheduler, DpmFastScheduler, DpmAdaptiveScheduler),
    )
}


def _noise(like: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
    noise: torch.Tensor = randn_tensor(like.shape, generator=generator, device=like.device, dtype=like.dtype)
    return noise
