"""Schedules of noise that diffusers has no option for, as options of its schedulers."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from craft_protos import samplers

Levels = Callable[[int, float, float], "np.ndarray[Any, Any]"]  # how many, the model's least and most

# Sabour et al. (2024): the noise levels of ten steps that NVIDIA published for each model.
_ALIGNED = {
    "sd": (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029),
    "sdxl": (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029),
}


def kl_optimal(count: int, least: float, most: float) -> np.ndarray[Any, Any]:
    """Even in the angle whose tangent the level is (Sabour et al. 2024), as ComfyUI has it."""
    return np.tan(np.linspace(math.atan(most), math.atan(least), count))


@cache
def aligned(kind: str) -> Levels:
    """Align Your Steps of a kind of model: between its ten steps evenly in the logarithm."""

    def levels(count: int, _least: float, _most: float) -> np.ndarray[Any, Any]:
        known = np.log(_ALIGNED[kind])
        return np.exp(np.interp(np.linspace(0, 1, count), np.linspace(0, 1, len(known)), known))

    return levels


def of(scheduler: Any) -> Levels:
    """Those that another scheduler lays out."""

    def levels(count: int, _least: float, _most: float) -> np.ndarray[Any, Any]:
        scheduler.set_timesteps(count)
        found: np.ndarray[Any, Any] = scheduler.sigmas[:-1].numpy()
        return found

    return levels


def leveled(kind: Any, levels: Levels) -> Any:
    """A kind of diffusers' schedulers whose option `use_karras_sigmas` means other levels."""

    def convert(
        self: Any, in_sigmas: np.ndarray[Any, Any], num_inference_steps: int | None = None
    ) -> np.ndarray[Any, Any]:
        count = num_inference_steps or self.num_inference_steps
        known = ((1 - self.alphas_cumprod) / self.alphas_cumprod) ** 0.5
        return levels(count, float(known[0]), float(known[-1]))

    return type(kind.__name__, (kind,), {"_convert_to_karras": convert, "__module__": __name__})


_LAST = 0.001  # the least level of the thousand that ComfyUI's and Forge's tables of a flow have
FLOW_SPACINGS: dict[str, Callable[[int], np.ndarray]] = {  # before they are shifted
    "Simple": lambda steps: np.linspace(1.0, 1 / steps, steps),
    "SGM Uniform": lambda steps: np.linspace(1.0, _LAST, steps + 1)[:-1],
    "Normal": lambda steps: np.linspace(1.0, _LAST, steps),
}


def of_flow(sampler: str, steps: int) -> dict[str, np.ndarray]:
    """What a scheduler of a flow is given for a sampler's schedule, in ComfyUI's meaning; nothing where it has none."""
    spaced = FLOW_SPACINGS.get(samplers.parts_of(sampler)[1]) if sampler else None
    return {"sigmas": spaced(steps)} if spaced is not None else {}
