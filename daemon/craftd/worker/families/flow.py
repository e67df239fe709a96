"""What the flow-matching transformers have in common: schedules that follow from the size, latents, memory."""

from __future__ import annotations

import math
from typing import Any

import torch

from craftd.worker import samplers
from craftd.worker.families.latents import Latents
from craftd.worker.picture import Pixels
from craftd.worker.samplers import Scheduler

_PATCH = 2  # latent pixels along a transformer token's side


class FlowMatching:
    """A loaded pipeline of such a model; `patch` is the side of a token, in pixels of the latents."""

    def __init__(self, pipe: Any, device: torch.device, *, patch: int = _PATCH) -> None:
        self._pipe = pipe
        self._transformer = pipe.transformer
        self._device = device
        self._token_side = int(pipe.vae_scale_factor) * patch
        self._latents = Latents(pipe, device, patch=patch)

    def schedule(self, sampler: str, steps: int, width: int, height: int) -> Scheduler:
        own: Scheduler = self._pipe.scheduler
        given: dict[str, Any] = {}
        shift = None
        if own.config.get("use_dynamic_shifting"):
            exponent = _shift_exponent((width // self._token_side) * (height // self._token_side), own.config)
            given["mu"] = exponent
            is_linear = own.config.get("time_shift_type") == "linear"
            shift = exponent if is_linear else math.exp(exponent)
        scheduler = samplers.build(sampler, own, shift)
        if not scheduler.config.get("use_flow_sigmas"):
            given |= self._sigmas(steps)
        samplers.spread(scheduler, steps, self._device, **given)
        return scheduler

    def prepare(self, width: int, height: int, generator: torch.Generator) -> torch.Tensor:
        return self._latents.noise(width, height, generator)

    def decode(self, latents: torch.Tensor) -> list[Pixels]:
        return self._latents.decode(latents)

    def sketch(self, latents: torch.Tensor) -> Pixels:
        return self._latents.sketch(latents)

    def offload(self) -> bool:
        if self._device.type != "cuda":
            return False
        self._pipe.enable_model_cpu_offload(device=self._device)
        return True

    def tile(self) -> bool:
        return self._latents.tile()

    def _sigmas(self, steps: int) -> dict[str, Any]:
        """Those that the pipeline has of its own, for the schedulers that take any."""
        return {}


def _shift_exponent(tokens: int, config: Any) -> float:
    """Larger pictures spend more steps in the noise (Esser et al. 2024, section 5.3.2): a line through two points."""
    least, largest = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    low, high = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
    slope = (high - low) / (largest - least)
    return float(tokens * slope + low - slope * least)
