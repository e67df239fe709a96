"""Samplers with a schedule of noise: each is diffusers' scheduler, configured as its documentation says."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from craft_protos.reasons import CraftError
from craft_protos.samplers import canonical, parts_of, schedules_of
from craft_protos.worker_pb2 import ModelManifest

from tests.worker.client import WorkerProcess, pixels, submit

Truth = Callable[..., np.ndarray]
_SDE = {"algorithm_type": "sde-dpmsolver++"}
DIFFUSERS: dict[str, tuple[str, dict[str, Any]]] = {
    "Euler": ("EulerDiscreteScheduler", {}),
    "Heun": ("HeunDiscreteScheduler", {}),
    "LMS": ("LMSDiscreteScheduler", {}),
    "DPM2": ("KDPM2DiscreteScheduler", {}),
    "DPM2 a": ("KDPM2AncestralDiscreteScheduler", {}),
    "DPM++ 2M": ("DPMSolverMultistepScheduler", {}),
    "DPM++ 2M SDE": ("DPMSolverMultistepScheduler", _SDE),
    "DPM++ 2M SDE Heun": ("DPMSolverMultistepScheduler", {**_SDE, "solver_type": "heun"}),
    "DPM++ 3M SDE": ("DPMSolverMultistepScheduler", {**_SDE, "solver_order": 3}),
    "DPM++ 2S": ("DPMSolverSinglestepScheduler", {}),
    "DPM++ SDE": ("DPMSolverSinglestepScheduler", _SDE),
    "DDIM": ("DDIMScheduler", {}),
    "DDPM": ("DDPMScheduler", {}),
    "PNDM": ("PNDMScheduler", {}),
    "UniPC": ("UniPCMultistepScheduler", {}),
    "DEIS": ("DEISMultistepScheduler", {}),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "Karras": {"use_karras_sigmas": True},
    "Exponential": {"use_exponential_sigmas": True},
    "Beta": {"use_beta_sigmas": True},
    "SGM Uniform": {"timestep_spacing": "trailing"},
    "Simple": {"timestep_spacing": "trailing"},
    "Normal": {"timestep_spacing": "linspace"},
    "DDIM": {"timestep_spacing": "leading", "steps_offset": 1},
}
# Each sampler once, each schedule once; every pair is in test_samplers.py, without a model.
_DRAWN = [(sampler, schedules_of(sampler)[0]) for sampler in DIFFUSERS]
_DRAWN += [("Euler", schedule) for schedule in OPTIONS if schedule != "Karras"]
_LEVELS = ("Karras", "Exponential", "Beta")


def drawn(worker: WorkerProcess, model: ModelManifest, sampler: str) -> np.ndarray:
    (image,) = worker.draw(submit(model, sampler=sampler, steps=6))
    return pixels(image)


def assert_same(made: np.ndarray, expected: np.ndarray) -> None:
    assert np.ptp(expected) > 20, "a flat picture proves nothing"
    assert np.abs(made - expected).max() <= 1


@pytest.mark.parametrize(("sampler", "schedule"), _DRAWN)
def test_pairs(worker: WorkerProcess, sd: ModelManifest, truth: Truth, sampler: str, schedule: str) -> None:
    kind, overrides = DIFFUSERS[sampler]

    def scheduled(own: Any) -> Any:
        return getattr(diffusers, kind).from_config(own.config, **overrides, **OPTIONS[schedule])

    assert_same(drawn(worker, sd, f"{sampler} {schedule}"), truth(steps=6, scheduled=scheduled))


@pytest.mark.parametrize("schedule", OPTIONS)
def test_euler_a(worker: WorkerProcess, sd: ModelManifest, truth: Truth, schedule: str) -> None:
    """Ancestral steps over the noise levels that Euler itself has with the schedule."""

    def scheduled(own: Any) -> Any:
        levels = diffusers.EulerDiscreteScheduler.from_config(own.config, **OPTIONS[schedule])
        ancestral = diffusers.EulerAncestralDiscreteScheduler.from_config(own.config, **OPTIONS[schedule])
        spread = ancestral.set_timesteps

        def set_timesteps(steps: int, device: Any = None) -> None:
            spread(steps, device)
            levels.set_timesteps(steps, device)
            ancestral.sigmas, ancestral.timesteps = levels.sigmas, levels.timesteps

        ancestral.set_timesteps = set_timesteps
        return ancestral

    made = drawn(worker, sd, f"Euler a {schedule}")
    assert_same(made, truth(steps=6, scheduled=scheduled))
    assert schedule == "DDIM" or np.abs(made - drawn(worker, sd, "Euler a")).max() > 1  # the model has that itself


def test_euler_a_karras_has_karras_noise_levels() -> None:
    """Equation 5 of Karras et al. (2022), with rho 7, between the model's own ends, as k-diffusion has it."""
    from craftd.worker.families.samplers import build

    own = diffusers.DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    own = diffusers.DDIMScheduler.from_config(own.config, timestep_spacing="linspace")
    scheduler = build("Euler a Karras", own)
    scheduler.set_timesteps(10, device="cpu")
    cumulated = own.alphas_cumprod.double()
    ends = ((1 - cumulated) / cumulated).sqrt()
    ramp = torch.linspace(0, 1, 10, dtype=torch.float64)
    least, most = ends[0] ** (1 / 7), ends[-1] ** (1 / 7)
    expected = torch.cat([(most + ramp * (least - most)) ** 7, torch.zeros(1, dtype=torch.float64)])
    assert torch.allclose(scheduler.sigmas.double(), expected, rtol=1e-4)  # type: ignore[attr-defined]


@pytest.mark.parametrize("schedule", _LEVELS)
@pytest.mark.parametrize("kind", ["sd3", "flux"])
def test_flow_matching(
    worker: WorkerProcess, models: dict[str, ModelManifest], truth: Truth, kind: str, schedule: str
) -> None:
    def scheduled(own: Any) -> Any:
        return diffusers.FlowMatchEulerDiscreteScheduler.from_config(own.config, **OPTIONS[schedule])

    assert_same(drawn(worker, models[kind], f"Euler {schedule}"), truth(kind, steps=6, scheduled=scheduled))


@pytest.mark.parametrize("sampler", ["DPM++ 2M Beta", "Heun Karras", "Heun Simple", "Euler a Karras"])
def test_what_flow_matching_has_no_schedule_for(
    worker: WorkerProcess, models: dict[str, ModelManifest], sampler: str
) -> None:
    failed = worker.fail(submit(models["sd3"], sampler=sampler))
    assert failed.error.reason == "INVALID_FIELD" and f"{sampler} does not fit" in failed.error.message


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("euler_ancestral karras", "Euler a Karras"),
        ("dpmpp_2m_sgm_uniform", "DPM++ 2M SGM Uniform"),
        ("DPM++ 3M SDE Exponential", "DPM++ 3M SDE Exponential"),
        ("Euler Uniform", "Euler Normal"),
        ("Euler Polyexponential", "Euler Exponential"),
        ("DPM2 Turbo", "DPM2 Simple"),
        ("dpm_2 ddim_uniform", "DPM2 DDIM"),
        ("dpmpp_2s_ancestral align_your_steps", "DPM++ 2S a Align Your Steps"),
        ("res_multistep_kl_optimal", "RES multistep KL Optimal"),
        ("Restart AYS", "Restart Align Your Steps"),
        ("LCM Beta", "LCM Beta"),
        ("euler_cfg_pp", "DDIM CFG++"),
        ("dpm++ 2m karras", "DPM++ 2M Karras"),
        ("DPM++ 2M SDE Heun", "DPM++ 2M SDE Heun"),
        ("LMS", "LMS"),
    ],
)
def test_names(written: str, name: str) -> None:
    assert canonical(written) == name and " ".join(filter(None, parts_of(written))) == name


@pytest.mark.parametrize(
    ("sampler", "why", "hint"),
    [
        ("DDIM Karras", "DDIM has no Karras schedule", "it goes with SGM Uniform, Simple, Normal, DDIM"),
        ("DPM fast KL Optimal", "DPM fast has no KL Optimal schedule", "name it alone"),
        ("TCD Beta", "TCD has no Beta schedule", "name it alone"),
        ("seeds_2", "no sampler is called 'seeds_2'", ""),
        ("Euler Linear Quadratic", "no sampler is called 'Euler Linear Quadratic'", ""),
    ],
)
def test_what_there_is_not_is_refused_by_name(sampler: str, why: str, hint: str) -> None:
    with pytest.raises(CraftError, match=re.escape(why)) as refused:
        canonical(sampler)
    assert refused.value.field == "sampler" and hint in refused.value.hint
