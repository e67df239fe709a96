"""The samplers' names -> diffusers' schedulers, always built from the model's own scheduler configuration.

What diffusers lacks is of the same form: `call_scheduler` has the samplers, `noise_levels` the schedules.

`DPM++ SDE` is DPM-Solver++(2S) with noise, as diffusers has it without torchsde: its noise comes
from the image's own generator, not from a process-wide seed, so that an image can be made again.

Flow-matching models take the samplers of `FLOW_RECIPES` alone: the others assume another kind of noise.
"""

from __future__ import annotations

import copy
import inspect
from typing import Any, Protocol

import diffusers
import torch
from craft_protos import samplers
from craft_protos.reasons import CraftError, invalid
from diffusers.schedulers.scheduling_euler_ancestral_discrete import EulerAncestralDiscreteScheduler
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from diffusers.schedulers.scheduling_scm import SCMScheduler

from craftd.worker.families import call_scheduler, noise_levels

_KARRAS: dict[str, Any] = {"use_karras_sigmas": True}
_SDE: dict[str, Any] = {"algorithm_type": "sde-dpmsolver++"}
# Of a schedule's name: what diffusers' documentation gives for it.
_LEVELS = {"Karras": "use_karras_sigmas", "Exponential": "use_exponential_sigmas", "Beta": "use_beta_sigmas"}
_SPACINGS: dict[str, dict[str, Any]] = {
    "SGM Uniform": {"timestep_spacing": "trailing"},
    "Simple": {"timestep_spacing": "trailing"},
    "Normal": {"timestep_spacing": "linspace"},
    "DDIM": {"timestep_spacing": "leading", "steps_offset": 1},
}
_OWN_LEVELS = ("KL Optimal", "Align Your Steps")
# Those that space timesteps in their own way, or in one alone: what they are given is Euler's levels.
_SINGLESTEP = "DPMSolverSinglestepScheduler"
_OTHERWISE_LEADING = ("DPMSolverMultistepScheduler", "UniPCMultistepScheduler", "DEISMultistepScheduler", _SINGLESTEP)

RECIPES: dict[str, tuple[str, dict[str, Any]]] = {
    "Euler": ("EulerDiscreteScheduler", {}),
    "Euler Karras": ("EulerDiscreteScheduler", _KARRAS),
    "Euler a": ("EulerAncestralDiscreteScheduler", {}),
    "DPM++ 2M": ("DPMSolverMultistepScheduler", {}),
    "DPM++ 2M Karras": ("DPMSolverMultistepScheduler", _KARRAS),
    "DPM++ 2M SDE": ("DPMSolverMultistepScheduler", _SDE),
    "DPM++ 2M SDE Karras": ("DPMSolverMultistepScheduler", _SDE | _KARRAS),
    "DPM++ 2M SDE Heun": ("DPMSolverMultistepScheduler", _SDE | {"solver_type": "heun"}),
    "DPM++ 3M SDE": ("DPMSolverMultistepScheduler", _SDE | {"solver_order": 3}),
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
    "DPM++ 2S a": ("Dpmpp2sAncestralScheduler", {}),
    "K DPM++ SDE": ("DpmppSdeScheduler", {}),
    "K DPM++ 3M SDE": ("Dpmpp3mSdeScheduler", {}),
    "DPM fast": ("DpmFastScheduler", {}),
    "DPM adaptive": ("DpmAdaptiveScheduler", {}),
    "Restart": ("RestartScheduler", {}),
    "DDIM CFG++": ("DdimCfgPpScheduler", {}),
    "RES multistep": ("ResMultistepScheduler", {}),
}

_NO_LEVELS: dict[str, Any] = dict.fromkeys(_LEVELS.values(), False)
_TO_NOUGHT: dict[str, Any] = {"final_sigmas_type": "zero", "timestep_type": "discrete"}

# What schedulers raise for numbers of steps that they cannot do.
_IMPOSSIBLE = (ValueError, IndexError, ZeroDivisionError, RuntimeError, AssertionError)

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


def build(
    name: str, own: Scheduler, shift: float | None = None, *, aligned: str = "", spaces: bool = False
) -> Scheduler:
    """A fresh scheduler of that name for the model whose `own` scheduler is given; "" is its own kind.

    `shift` is of flow matching, where it follows from the size and the scheduler cannot find it by itself;
    `aligned`: the kind of model that Align Your Steps takes it for; `spaces`: noise levels of a flow that the schedule
    names are laid out by who asks (`noise_levels.FLOW_SPACINGS`).

    Raises INVALID_FIELD for a name nobody knows, or one that this model cannot use.
    """
    if not name:
        return _from_config(type(own), own, {})
    name = samplers.canonical(name)
    if isinstance(own, SCMScheduler):  # consistency too, over angles (Lu and Song 2024)
        if name != "LCM":
            raise invalid("sampler", f"{name} does not fit this model, which was distilled to consistency", "use LCM")
        return _from_config(type(own), own, {})
    if is_flow_matching(own):
        return _build_flow(name, own, shift, spaces=spaces)
    sampler, schedule = (name, "") if name in RECIPES else samplers.parts_of(name)
    kind, overrides = RECIPES[sampler]
    if sampler == "LCM" and schedule:  # diffusers' has timesteps of its own
        kind = "LcmLevelsScheduler"
    if sampler == "Euler a" and schedule in (*_LEVELS, *_OWN_LEVELS):
        return _ancestral(own, schedule, aligned)
    spaces_otherwise = kind in _OTHERWISE_LEADING and schedule == "DDIM"
    if spaces_otherwise or (kind == _SINGLESTEP and schedule in _SPACINGS):
        euler = _from_config(EulerDiscreteScheduler, own, _NO_LEVELS | _of_schedule(schedule))
        return _leveled(getattr(diffusers, kind), own, overrides, noise_levels.of(euler))
    return _scheduled(kind, own, overrides, schedule, aligned)


def _scheduled(kind: str, own: Scheduler, overrides: dict[str, Any], schedule: str, aligned: str) -> Scheduler:
    made = call_scheduler.KINDS.get(kind) or getattr(diffusers, kind)
    if kind in call_scheduler.KINDS:
        overrides = overrides | _TO_NOUGHT
    if schedule == "KL Optimal":
        return _leveled(made, own, overrides, noise_levels.kl_optimal)
    if schedule == "Align Your Steps":
        return _leveled(made, own, overrides, _aligned(aligned))
    return _from_config(made, own, overrides | _of_schedule(schedule))


def _aligned(kind: str) -> noise_levels.Levels:
    if not kind:
        why = "has no Align Your Steps schedule for this model: its levels were found for Stable Diffusion 1 and XL"
        raise invalid("sampler", why, "take Karras, or KL Optimal")
    return noise_levels.aligned(kind)


def _leveled(kind: Any, own: Scheduler, overrides: dict[str, Any], levels: noise_levels.Levels) -> Scheduler:
    return _from_config(noise_levels.leveled(kind, levels), own, overrides | _of_schedule("Karras"))


def _of_schedule(name: str) -> dict[str, Any]:
    """The options of one; a model's own schedule of another kind is not kept beside it."""
    if name in _LEVELS:
        return {option: level == name for level, option in _LEVELS.items()}
    return dict(_SPACINGS[name]) if name else {}


class SpacedEulerAncestralScheduler(EulerAncestralDiscreteScheduler):
    """Ancestral steps of Euler's method over the noise levels of its plain scheduler.

    diffusers has no such option; AUTOMATIC1111 and ComfyUI draw "Euler a" with any schedule so (Karras et al. 2022).
    """

    levels: Any

    def set_timesteps(self, num_inference_steps: int, device: Any = None) -> None:
        self.levels.set_timesteps(num_inference_steps, device=device)
        self.num_inference_steps = num_inference_steps  # type: ignore[assignment]
        self.timesteps, self.sigmas = self.levels.timesteps, self.levels.sigmas
        self._step_index = self._begin_index = None


def _ancestral(own: Scheduler, schedule: str, aligned: str) -> Scheduler:
    scheduler: Any = _from_config(SpacedEulerAncestralScheduler, own, {})
    scheduler.levels = _scheduled("EulerDiscreteScheduler", own, {}, schedule, aligned)
    made: Scheduler = scheduler
    return made


def spread(scheduler: Scheduler, steps: int, *, begins: bool = False, **arguments: Any) -> None:
    """Lay out the timesteps; `arguments` that the scheduler does not take are left out.

    They stay on the CPU, as the tables do that they look into: on a device, each step would wait to read them there.

    `begins`: count from the first timestep, as the pipelines after Stable Diffusion 2 do.

    Raises INVALID_FIELD where the sampler cannot do that many.
    """
    accepted = inspect.signature(scheduler.set_timesteps).parameters
    given = {key: value for key, value in arguments.items() if key in accepted}
    try:
        _lay_out(scheduler, steps, begins, given)
    except _IMPOSSIBLE as exc:
        raise _impossible(steps, scheduler, begins, given) from exc


def _lay_out(scheduler: Scheduler, steps: int, begins: bool, given: dict[str, Any]) -> None:
    trained = int(scheduler.config.get("num_train_timesteps", steps))
    if steps > trained:
        raise ValueError(f"{steps} are more than the {trained} that the model was trained with")
    scheduler.set_timesteps(steps, device="cpu", **given)
    if len(scheduler.timesteps) == 0 or not torch.isfinite(scheduler.timesteps).all():
        raise ValueError("no timesteps")  # a schedule that is stretched to its end cannot be of one step
    if begins:
        _begin(scheduler)
    _check_indices(scheduler)


def _check_indices(scheduler: Scheduler) -> None:
    """Raises ValueError where the last steps would look beyond the end of the scheduler's tables.

    Many timesteps may coincide, and the first of equal ones is then taken for the second, or lie beyond the last.
    """
    timesteps: torch.Tensor = scheduler.timesteps
    sigmas, alphas = getattr(scheduler, "sigmas", None), getattr(scheduler, "alphas_cumprod", None)
    index_of = getattr(scheduler, "index_for_timestep", None)
    if sigmas is not None and index_of is not None:
        first = index_of(timesteps[0]) if getattr(scheduler, "begin_index", None) is None else 0
        is_beyond = int(first) + len(timesteps) > len(sigmas) - 1
        if _is_multistep(scheduler) and bool((sigmas[:-1].diff() == 0).any()):
            raise ValueError("a step of no length, by which multistep solvers divide")
    else:
        is_beyond = alphas is not None and int(timesteps.max()) >= len(alphas)
    if is_beyond or (len(timesteps) > 1 and timesteps[0] == timesteps[-1]):
        raise ValueError("timesteps that the scheduler cannot take")


def _is_multistep(scheduler: Scheduler) -> bool:
    """By its own arguments: its configuration may have come from a model whose own scheduler is one."""
    return "solver_order" in inspect.signature(type(scheduler).__init__).parameters


def _begin(scheduler: Scheduler) -> None:
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


def clean(sample: torch.Tensor, timestep: torch.Tensor, output: torch.Tensor, scheduler: Scheduler) -> torch.Tensor:
    """The noiseless latents that this output points at (Song et al. 2020, equation 12; Lipman et al. 2022)."""
    if is_flow_matching(scheduler):
        return sample - float(timestep) / float(scheduler.config.num_train_timesteps) * output
    alphas = getattr(scheduler, "alphas_cumprod", None)
    if alphas is None:
        return sample
    alpha = float(alphas[int(timestep.round().clamp(0, len(alphas) - 1))])
    kept, noise = alpha**0.5, (1 - alpha) ** 0.5
    kinds: dict[str, torch.Tensor] = {
        "epsilon": (sample - noise * output) / kept,
        "v_prediction": kept * sample - noise * output,
        "sample": output,
    }
    return kinds[scheduler.config.get("prediction_type", "epsilon")]


def call_after(scheduler: Scheduler, share: float) -> int:
    """The model call before which that share of the noise schedule is done, as diffusers counts a denoising_end."""
    return int((scheduler.timesteps >= _noise_after(scheduler, share)).sum())


def call_before_end(scheduler: Scheduler, share: float) -> int:
    """The model call that goes on after that share of the noise schedule, as diffusers counts a denoising_start."""
    left = int((scheduler.timesteps < _noise_after(scheduler, share)).sum())
    if scheduler.order == 2 and left % 2 == 0:
        left += 1  # else it would begin with the second half of a step
    return len(scheduler.timesteps) - left


def _noise_after(scheduler: Scheduler, share: float) -> int:
    """The timestep that was trained on."""
    trained = int(scheduler.config.num_train_timesteps)
    return round(trained - share * trained)


def completed_steps(calls: int, steps: int, scheduler: Scheduler, left_out: int = 0) -> int:
    """Steps as users count them after so many model calls; what diffusers' progress bar shows.

    `left_out`: model calls of the schedule that image-to-image does not make.
    """
    total, order = len(scheduler.timesteps) - left_out, scheduler.order
    if is_adaptive(scheduler):
        known: Any = scheduler
        done = steps if calls >= total else known.counted_steps(calls + left_out)
        return max(int(done) - left_out, 0)
    warmup = total - (steps - left_out // order) * order
    return sum(1 for i in range(1, calls + 1) if i == total or (i > warmup and i % order == 0))


def _build_flow(name: str, own: Scheduler, shift: float | None, *, spaces: bool) -> Scheduler:
    sampler, schedule = samplers.parts_of(name)
    known = {one: samplers.flow_schedules_of(one) for one in FLOW_RECIPES}
    if sampler not in FLOW_RECIPES or (schedule and schedule not in known[sampler]):
        allowed = ", ".join([*FLOW_RECIPES, *(f"{one} {level}" for one, levels in known.items() for level in levels)])
        raise invalid("sampler", f"{name} does not fit this model, which matches flows", f"use one of {allowed}")
    if schedule in noise_levels.FLOW_SPACINGS and not spaces:
        why = "cannot be laid out for this model, whose pipeline spaces its steps itself"
        raise invalid("sampler", f"{name} {why}", f"use {sampler}")
    kind, overrides = FLOW_RECIPES[sampler]
    overrides = overrides | ({} if schedule in noise_levels.FLOW_SPACINGS else _of_schedule(schedule))
    own_shift = own.config.get("flow_shift", own.config.get("shift", 1.0))
    shifts = {"shift": own_shift if shift is None else shift, "flow_shift": own_shift}
    return _from_config(getattr(diffusers, kind), own, overrides | shifts)


def _from_config(kind: Any, own: Scheduler, overrides: dict[str, Any]) -> Scheduler:
    scheduler: Scheduler = kind.from_config(own.config, **overrides)
    return scheduler


def is_adaptive(scheduler: Any) -> bool:
    """Whether it decides as it goes how many model calls there are."""
    return bool(getattr(scheduler, "is_adaptive", False))


def laid_out(scheduler: Any) -> int:
    """Model calls, or the steps that were asked for where the calls are not known."""
    return int(scheduler.num_inference_steps if is_adaptive(scheduler) else len(scheduler.timesteps))


def wants_unguided(scheduler: Any) -> bool:
    """Whether its steps go by what the model says without the prompt, too."""
    return bool(getattr(scheduler, "wants_unguided", False))


def remarks(name: str) -> list[str]:
    """What of a request the sampler does not go by: its user should know."""
    if name == "DPM adaptive":
        return ["DPM adaptive finds out by itself how many steps it takes: those that were asked for are none"]
    return []


def is_flow_matching(own: Scheduler) -> bool:
    return "FlowMatch" in type(own).__name__ or bool(own.config.get("use_flow_sigmas"))


def _impossible(steps: int, scheduler: Scheduler, begins: bool, given: dict[str, Any]) -> CraftError:
    name = type(scheduler).__name__.removesuffix("Scheduler")
    trained = int(scheduler.config.get("num_train_timesteps", steps))
    for fewer in (trained, trained - 1, trained // 2, 20, 10, 1):
        try:
            _lay_out(copy.deepcopy(scheduler), fewer, begins, given)
        except _IMPOSSIBLE:
            continue
        return invalid("steps", f"{name} cannot do {steps} steps with this model", f"take {fewer}")
    return invalid("steps", f"{name} cannot do {steps} steps with this model", "take another sampler")
