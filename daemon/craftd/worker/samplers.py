"""The samplers' names -> diffusers' schedulers, always built from the model's own scheduler configuration.

`DPM++ SDE` is DPM-Solver++(2S) with noise, as diffusers has it without torchsde: its noise comes
from the image's own generator, not from a process-wide seed, so that an image can be made again.

Flow-matching models take the samplers of `FLOW_RECIPES` alone: the others assume another kind of noise.
"""

from __future__ import annotations

import inspect
from typing import Any, Protocol

import diffusers
import torch
from craft_protos import samplers
from craft_protos.reasons import CraftError, invalid

_KARRAS: dict[str, Any] = {"use_karras_sigmas": True}
_SDE: dict[str, Any] = {"algorithm_type": "sde-dpmsolver++"}

RECIPES: dict[str, tuple[str, dict[str, Any]]] = {
    "Euler": ("EulerDiscreteScheduler", {}),
    "Euler Karras": ("EulerDiscreteScheduler", _KARRAS),
    "Euler a": ("EulerAncestralDiscreteScheduler", {}),
    "DPM++ 2M": ("DPMSolverMultistepScheduler", {}),
    "DPM++ 2M Karras": ("DPMSolverMultistepScheduler", _KARRAS),
    "DPM++ 2M SDE": ("DPMSolverMultistepScheduler", _SDE),
    "DPM++ 2M SDE Karras": ("DPMSolverMultistepScheduler", _SDE | _KARRAS),
    "DPM++ 2S": ("DPMSolverSinglestepScheduler", {}),
    "DPM++ SDE": ("DPMSolverSinglestepScheduler", _SDE),
    "DPM++ SDE Karras": ("DPMSolverSinglestepScheduler", _SDE | _KARRAS),
    "DPM2": ("KDPM2DiscreteScheduler", {}),
    "DPM2 a": ("KDPM2AncestralDiscreteScheduler", {}),
    "DDIM": ("DDIMScheduler", {}),
    "DDPM": ("DDPMScheduler", {}),
    "UniPC": ("UniPCMultistepScheduler", {}),
    "Heun": ("HeunDiscreteScheduler", {}),
    "LMS": ("LMSDiscreteScheduler", {}),
    "LMS Karras": ("LMSDiscreteScheduler", _KARRAS),
    "PNDM": ("PNDMScheduler", {}),
    "DEIS": ("DEISMultistepScheduler", {}),
    "LCM": ("LCMScheduler", {}),
    "TCD": ("TCDScheduler", {}),
}

_FLOW: dict[str, Any] = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}

FLOW_RECIPES: dict[str, tuple[str, dict[str, Any]]] = {
    "Euler": ("FlowMatchEulerDiscreteScheduler", {}),
    "Heun": ("FlowMatchHeunDiscreteScheduler", {}),
    "DPM++ 2M": ("DPMSolverMultistepScheduler", _FLOW),
    "DPM++ 2S": ("DPMSolverSinglestepScheduler", _FLOW),
    "UniPC": ("UniPCMultistepScheduler", _FLOW),
}


class Scheduler(Protocol):
    """The part of a diffusers scheduler that the loop uses."""

    config: Any
    timesteps: torch.Tensor
    order: int

    def set_timesteps(self, num_inference_steps: int, *, device: Any, **arguments: Any) -> None: ...

    def step(self, model_output: torch.Tensor, timestep: Any, sample: torch.Tensor, **kwargs: Any) -> Any: ...


def build(name: str, own: Scheduler, shift: float | None = None) -> Scheduler:
    """A fresh scheduler of that name for the model whose `own` scheduler is given; "" is its own kind.

    `shift` is of flow matching, where it follows from the size and the scheduler cannot find it by itself.

    Raises INVALID_FIELD for a name nobody knows, or one that this model cannot use.
    """
    if not name:
        return _from_config(type(own), own, {})
    name = samplers.canonical(name)
    if is_flow_matching(own):
        return _build_flow(name, own, shift)
    kind, overrides = RECIPES[name]
    return _from_config(getattr(diffusers, kind), own, overrides)


def spread(scheduler: Scheduler, steps: int, device: torch.device, **arguments: Any) -> None:
    """Lay out the timesteps; `arguments` that the scheduler does not take are left out.

    Raises INVALID_FIELD where the sampler cannot do that many.
    """
    accepted = inspect.signature(scheduler.set_timesteps).parameters
    given = {key: value for key, value in arguments.items() if key in accepted}
    if steps > scheduler.config.get("num_train_timesteps", steps):
        raise _too_many(steps, scheduler)
    try:
        scheduler.set_timesteps(steps, device=device, **given)
    except (ValueError, IndexError, ZeroDivisionError, RuntimeError) as exc:
        raise _too_many(steps, scheduler) from exc
    if len(scheduler.timesteps) == 0:
        raise _too_many(steps, scheduler)


def begin(scheduler: Scheduler) -> None:
    """Count from the first timestep, as the pipelines after Stable Diffusion 2 do."""
    set_begin_index = getattr(scheduler, "set_begin_index", None)
    if set_begin_index is not None:
        set_begin_index(0)


def noise_deviation(scheduler: Scheduler) -> Any:
    """How large the first latents' noise is."""
    return getattr(scheduler, "init_noise_sigma", 1.0)


def scaled(scheduler: Scheduler, latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
    """Latents as the model takes them; of flow matching, as they are."""
    scale = getattr(scheduler, "scale_model_input", None)
    return latents if scale is None else scale(latents, timestep)


def step_arguments(scheduler: Scheduler, generator: torch.Generator) -> dict[str, Any]:
    """What `step` takes beside the tensors, as diffusers' pipelines pass it."""
    accepted = inspect.signature(scheduler.step).parameters
    given: dict[str, Any] = {"eta": 0.0, "generator": generator}
    return {key: value for key, value in given.items() if key in accepted}


def completed_steps(calls: int, steps: int, scheduler: Scheduler) -> int:
    """Steps as users count them after so many model calls; what diffusers' progress bar shows."""
    total, order = len(scheduler.timesteps), scheduler.order
    warmup = total - steps * order
    return sum(1 for i in range(1, calls + 1) if i == total or (i > warmup and i % order == 0))


def _build_flow(name: str, own: Scheduler, shift: float | None) -> Scheduler:
    if name not in FLOW_RECIPES:
        allowed = ", ".join(FLOW_RECIPES)
        raise invalid("sampler", f"{name} does not fit this model, which matches flows", f"use one of {allowed}")
    kind, overrides = FLOW_RECIPES[name]
    own_shift = own.config.get("flow_shift", own.config.get("shift", 1.0))
    shifts = {"shift": own_shift if shift is None else shift, "flow_shift": own_shift}
    return _from_config(getattr(diffusers, kind), own, overrides | shifts)


def _from_config(kind: Any, own: Scheduler, overrides: dict[str, Any]) -> Scheduler:
    scheduler: Scheduler = kind.from_config(own.config, **overrides)
    return scheduler


def is_flow_matching(own: Scheduler) -> bool:
    return "FlowMatch" in type(own).__name__ or bool(own.config.get("use_flow_sigmas"))


def _too_many(steps: int, scheduler: Scheduler) -> CraftError:
    name = type(scheduler).__name__.removesuffix("Scheduler")
    return invalid("steps", f"{name} cannot do {steps} steps with this model", "ask for another number, say 20")
