"""Every sampler with every schedule and many numbers of steps: as its reference, or refused before the first call.

The model is one whose denoiser is known: of data that are normally distributed. Latents are four numbers.
"""

from __future__ import annotations

import math
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import craftd
import diffusers
import numpy as np
import pytest
import torch
from craft_protos.reasons import CraftError
from craft_protos.samplers import ABOUT, SAMPLERS, SCHEDULES, schedules_of
from craftd.worker.families import call_scheduler, samplers
from diffusers.schedulers.scheduling_ddim import DDIMScheduler

from docs import samplers as docs_samplers
from tests.worker import k_diffusion
from tests.worker.test_schedules import DIFFUSERS, OPTIONS

_STEPS = (1, 2, 3, 6, 30)
_PLAIN = [name for name in SAMPLERS if not name.endswith(" Karras")]
_OWN = ("DPM++ 2S a", "K DPM++ SDE", "K DPM++ 3M SDE", "RES multistep", "Restart", "LCM", "DPM fast", "DPM adaptive")
_CPU = torch.device("cpu")
_MEAN, _DEVIATION = torch.tensor([0.3, -1.0, 0.5, 2.0]).view(1, 1, 2, 2), 0.7
OWN = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="linspace")
_TABLE = ((1 - OWN.alphas_cumprod.double()) / OWN.alphas_cumprod.double()).sqrt().log().numpy()  # of noise levels


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def clean(x: torch.Tensor, level: float) -> torch.Tensor:
    return (_DEVIATION**2 * x + level**2 * _MEAN) / (_DEVIATION**2 + level**2)


def noise_of(sample: torch.Tensor, timestep: Any) -> torch.Tensor:
    """What a model of the noise says of scaled latents."""
    level = math.exp(np.interp(float(timestep), np.arange(1000), _TABLE))
    x = sample * math.sqrt(level**2 + 1)
    return (x - clean(x, level)) / level


def denoised(x: torch.Tensor, level: float) -> torch.Tensor:
    """The same of latents with noise of that level, found by its timestep as k-diffusion finds it."""
    timestep = np.interp(math.log(level), _TABLE, np.arange(1000))
    return x - level * noise_of(x / math.sqrt(level**2 + 1), timestep)


def drawn(scheduler: Any, seed: int = 5, noise_seed: int | None = None) -> torch.Tensor:
    """As the engine draws; `noise_seed`: of the noise after the first, if it is not to follow from that."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(1, 1, 2, 2, generator=generator) * float(samplers.noise_deviation(scheduler))
    if noise_seed is not None:
        generator.manual_seed(noise_seed)
    arguments, place = samplers.step_arguments(scheduler, generator), 0
    while place < len(scheduler.timesteps):
        timestep = scheduler.timesteps[place]
        said = noise_of(samplers.scaled(scheduler, x, timestep), timestep)
        x = scheduler.step(said, timestep, x, **arguments, return_dict=False)[0]
        place += 1
    return x


def ready(name: str, steps: int, own: Any = OWN) -> Any:
    scheduler = samplers.build(name, own, aligned="sd")
    samplers.spread(scheduler, steps)
    return scheduler


def tried(scheduler: Any, steps: int) -> torch.Tensor | None:
    """None where it is refused."""
    try:
        samplers.spread(scheduler, steps)
    except CraftError as exc:
        assert (exc.reason, exc.field, bool(exc.hint)) == ("INVALID_FIELD", "steps", True)
        return None
    made = drawn(scheduler)
    assert torch.isfinite(made).all()
    return made


def looped(sampler: str, schedule: str, steps: int, seed: int = 5) -> torch.Tensor:
    """What the plain loop draws over Euler's levels."""
    euler: Any = samplers.build(f"Euler {schedule}".strip(), OWN, aligned="sd")
    euler.set_timesteps(steps)
    levels = [float(one) for one in euler.sigmas]
    if sampler in ("DPM fast", "DPM adaptive"):
        levels[-1] = math.exp(_TABLE[0])
    generator = torch.Generator().manual_seed(seed)
    noise = partial(torch.randn, 1, 1, 2, 2, generator=generator)
    return k_diffusion.LOOPS[sampler](denoised, noise() * float(euler.init_noise_sigma), levels, noise)


@pytest.mark.parametrize("sampler", _OWN)
def test_ours_are_the_papers(sampler: str) -> None:
    for schedule in ("", *schedules_of(sampler)):
        if sampler == "LCM" and not schedule:  # diffusers' own
            continue
        scheduler = samplers.build(f"{sampler} {schedule}".strip(), OWN, aligned="sd")
        for steps in (*_STEPS, *((40,) if sampler == "Restart" else ()), *(() if schedule else (1000,))):
            made = tried(scheduler, steps)
            assert made is not None or steps == 1000, (schedule, steps)
            if made is not None:
                assert torch.allclose(made, looped(sampler, schedule, steps), atol=1e-4), (schedule, steps)


@pytest.mark.parametrize("sampler", [name for name in _PLAIN if name in DIFFUSERS])
def test_others_are_diffusers(sampler: str) -> None:
    """With the options that its documentation gives for a schedule, or the schedule's levels in their place."""
    kind, overrides = DIFFUSERS[sampler]
    for schedule in _tried_with(sampler):
        refused, scheduler = [], samplers.build(f"{sampler} {schedule}", OWN, aligned="sd")
        theirs = _theirs(sampler, schedule, getattr(diffusers, kind), overrides)
        for steps in _STEPS[:-1] if sampler == "LMS" else _STEPS:  # its coefficients are integrals
            made = tried(scheduler, steps)
            if made is None:
                refused.append(steps)
            else:
                theirs.set_timesteps(steps, device=_CPU)
                assert torch.allclose(made, drawn(theirs), atol=1e-4), (schedule, steps)
        assert set(refused) <= ({1, 2, 3} if sampler == "PNDM" else {1}), (schedule, refused)


def _tried_with(sampler: str) -> tuple[str, ...]:
    """Schedules; the two that take long to be made share them out."""
    known = schedules_of(sampler)
    return {"DPM2": known[::2], "DPM2 a": known[1::2]}.get(sampler, known)


def _theirs(sampler: str, schedule: str, kind: Any, overrides: dict[str, Any]) -> Any:
    lacks = _levels(sampler, schedule, 2) is not None
    options = {"use_karras_sigmas": True} if lacks else OPTIONS[schedule]
    scheduler = kind.from_config(OWN.config, **overrides, **options)
    if lacks:
        scheduler._convert_to_karras = lambda in_sigmas, num_inference_steps=None: _levels(
            sampler, schedule, num_inference_steps or scheduler.num_inference_steps
        )
    return scheduler


def _levels(sampler: str, schedule: str, steps: int) -> Any:
    """Those that diffusers has no option of that sampler for."""
    if schedule == "KL Optimal":
        return k_diffusion.kl_optimal(steps, math.exp(_TABLE[0]), math.exp(_TABLE[-1]))
    if schedule == "Align Your Steps":
        return aligned(steps)
    solves = sampler.startswith(("DPM++ 2M", "DPM++ 3M", "UniPC", "DEIS"))
    if sampler in ("DPM++ 2S", "DPM++ SDE") and schedule in ("SGM Uniform", "Simple", "Normal", "DDIM"):
        solves = True
    elif schedule != "DDIM":
        return None
    if not solves:
        return None
    euler: Any = diffusers.EulerDiscreteScheduler.from_config(OWN.config, **OPTIONS[schedule])
    euler.set_timesteps(steps)
    return euler.sigmas[:-1].numpy()


def aligned(steps: int) -> Any:
    """NVIDIA's levels for Stable Diffusion 1."""
    known = [14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029]
    return np.exp(np.interp(np.linspace(0, 10, steps), np.arange(11), np.log(known)))


@pytest.mark.parametrize("sampler", [*(name for name in DIFFUSERS if name != "LMS"), "Euler a", "LCM", "TCD"])
def test_a_thousand_steps(sampler: str) -> None:
    made = tried(samplers.build(sampler, OWN), 1000)
    if made is not None and sampler in DIFFUSERS:
        kind, overrides = DIFFUSERS[sampler]
        theirs: Any = getattr(diffusers, kind).from_config(OWN.config, **overrides)
        theirs.set_timesteps(1000, device=_CPU)
        assert torch.equal(made, drawn(theirs))


def test_forges_turbo_is_simple() -> None:
    """Its timesteps: evenly down from the last, each the last of its share."""
    for steps in _STEPS:
        expected = (torch.arange(steps, 0, -1) * 1000 / steps - 1).round()
        assert (ready("Euler Turbo", steps).timesteps - expected).abs().max() <= 1


def test_polyexponential_is_exponential_with_the_rho_that_is_usual() -> None:
    ends = _TABLE[-1], _TABLE[0]
    expected = np.exp(np.linspace(1, 0, 10) ** 1.0 * (ends[0] - ends[1]) + ends[1])
    assert np.allclose(ready("Euler Polyexponential", 10).sigmas[:-1].numpy(), expected, rtol=1e-3)


@pytest.mark.parametrize("prediction", ["v_prediction", "sample"])
def test_what_the_model_predicts(prediction: str) -> None:
    own = DDIMScheduler.from_config(OWN.config, prediction_type=prediction)
    scheduler = ready("DPM++ 2S a", 6, own)
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(1, 1, 2, 2, generator=generator) * float(scheduler.init_noise_sigma)
    for timestep in scheduler.timesteps:
        sample = scheduler.scale_model_input(x, timestep)
        level = math.exp(np.interp(float(timestep), np.arange(1000), _TABLE))
        whole = clean(sample * math.sqrt(level**2 + 1), level)
        noise = noise_of(sample, timestep)
        said = whole if prediction == "sample" else (noise - level * whole) / math.sqrt(level**2 + 1)
        x = scheduler.step(said, timestep, x, generator=generator)[0]
    assert torch.allclose(x, looped("DPM++ 2S a", "", 6), atol=1e-4)


def test_ddim_cfg_pp() -> None:
    """Chung et al. (2024), algorithm 2, in the terms of DDIM; a twelfth and a half of the guidance counts."""
    scheduler = ready("DDIM CFG++", 8)
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(1, 1, 2, 2, generator=generator) * float(scheduler.init_noise_sigma)
    alphas = [*OWN.alphas_cumprod[scheduler.timesteps.round().long()].double(), torch.tensor(1.0)]
    z = x / math.sqrt(float(scheduler.init_noise_sigma) ** 2 + 1)
    for place, timestep in enumerate(scheduler.timesteps):
        sample = scheduler.scale_model_input(x, timestep)
        unguided = noise_of(sample, timestep)
        guided = unguided + 7.5 * 0.1 * sample.sin()
        x = scheduler.step(guided, timestep, x, unguided=unguided)[0]
        theirs = noise_of(z, timestep)
        less = theirs + 7.5 / 12.5 * 0.1 * z.sin()
        whole = (z - (1 - alphas[place]).sqrt() * less) / alphas[place].sqrt()
        z = alphas[place + 1].sqrt() * whole + (1 - alphas[place + 1]).sqrt() * theirs
    assert torch.allclose(x, z.float(), atol=1e-3)


def test_an_adaptive_one_comes_to_an_end() -> None:
    """A model that never says the same twice has no step that is short enough."""
    scheduler, generator = ready("DPM adaptive", 10), torch.Generator().manual_seed(0)
    x, place = torch.randn(1, 1, 2, 2) * 14, 0
    with pytest.raises(CraftError, match="more than 600 model calls"):
        while place < len(scheduler.timesteps):
            said = torch.randn(1, 1, 2, 2, generator=generator) * 1e3
            x = scheduler.step(said, scheduler.timesteps[place], x, generator=generator)[0]
            place += 1
    assert place < 600


@pytest.mark.parametrize("sampler", [name for name in _PLAIN if name != "DDIM CFG++"])
def test_what_is_told_of_it(sampler: str) -> None:
    """Whether it adds noise, and how often it calls the model."""
    about, steps = ABOUT[sampler], 20 if sampler == "Restart" else 6
    calls = len(ready(sampler, steps).timesteps)
    made = [drawn(ready(sampler, steps), 5, noise_seed) for noise_seed in (1, 2)]
    assert about.is_random == (not torch.equal(*made))
    assert sampler == "PNDM" or about.calls == (0 if sampler == "DPM adaptive" else {6: 1, 11: 2, 39: 2}[calls])


def test_the_page_has_the_table() -> None:
    page = (Path(__file__).parents[2] / "docs" / "samplers.md").read_text(encoding="utf-8")
    assert page == docs_samplers.render(page), "python -m docs.samplers"
    assert list(ABOUT) and set(ABOUT) == set(_PLAIN)


def test_every_sampler_and_schedule_is_tried() -> None:
    assert {*DIFFUSERS, *_OWN, "Euler a", "DDIM CFG++", "TCD"} == set(_PLAIN)
    assert {kind for kind, _ in samplers.RECIPES.values()} >= {*call_scheduler.KINDS} - {"LcmLevelsScheduler"}
    assert set(OPTIONS) | {"KL Optimal", "Align Your Steps"} == set(SCHEDULES)


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_built_in_models_own_scheduler_makes_way_for_each(name: str) -> None:
    """It is a multistep solver, whose options stay in the configuration of whatever takes its place."""
    folder = Path(craftd.__file__).parent / "pocket" / "scheduler"
    own = diffusers.DPMSolverMultistepScheduler.from_pretrained(folder)
    known = [one for one in schedules_of(name) if one != "Align Your Steps"] if name in _PLAIN else []
    for schedule in ("", *known):
        scheduler = samplers.build(f"{name} {schedule}".strip(), own)
        samplers.spread(scheduler, 12)
        assert len(scheduler.timesteps) >= (1 if name == "DPM adaptive" else 12), schedule
