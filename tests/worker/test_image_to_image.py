"""A picture's latents, and where drawing begins from them: what diffusers' image-to-image pipelines prepare."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from craftd.worker.families.latents import Source, first_call
from craftd.worker.training import trainable
from diffusers import AutoPipelineForImage2Image

from tests.worker.trained import CPU, photo

KINDS = ("sd", "sdxl", "sd3", "flux")
SIDE = 64
STEPS = 7

Pipelines = Callable[[str], Any]


class Noiseless:
    """A scheduler that leaves latents as they are."""

    def add_noise(self, sample: torch.Tensor, _noise: torch.Tensor, _timestep: torch.Tensor) -> torch.Tensor:
        return sample

    def scale_noise(self, sample: torch.Tensor, _timestep: torch.Tensor, _noise: torch.Tensor) -> torch.Tensor:
        return sample


def _pixels() -> torch.Tensor:
    return torch.from_numpy(np.asarray(photo(3, SIDE, SIDE)).copy()).permute(2, 0, 1)[None] / 127.5 - 1


def _diffusers_prepares(pipe: Any, pixels: torch.Tensor, timestep: torch.Tensor, seed: int) -> torch.Tensor:
    generator, where = torch.Generator("cpu").manual_seed(seed), (torch.float32, torch.device("cpu"))
    if "Flux" not in type(pipe).__name__:
        latents: torch.Tensor = pipe.prepare_latents(pixels, timestep, 1, 1, *where, generator)
        return latents
    channels = pipe.transformer.config.in_channels // 4
    packed, _ = pipe.prepare_latents(pixels, timestep, 1, channels, SIDE, SIDE, *where, generator)
    unpacked: torch.Tensor = pipe._unpack_latents(packed, SIDE, SIDE, pipe.vae_scale_factor)
    return unpacked


@pytest.mark.parametrize("kind", [*KINDS, "sd-tiny-vae"])
def test_a_pictures_latents_are_those_of_diffusers(pipelines: Pipelines, kind: str) -> None:
    pipe = pipelines(kind)
    family, theirs = trainable.family_of(pipe, CPU.place), copy.copy(AutoPipelineForImage2Image.from_pipe(pipe))
    theirs.__dict__["scheduler"] = Noiseless()
    with torch.inference_mode():
        ours = family.encode_image(_pixels(), torch.Generator("cpu").manual_seed(4))
        expected = _diffusers_prepares(theirs, _pixels(), torch.tensor([1.0]), seed=4)
        (drawn,), (truth,) = family.decode(ours), family.decode(expected)
    assert np.ptp(truth) > 20, "a flat picture proves nothing"
    assert np.abs(drawn.astype(int) - truth).max() <= 1


@pytest.mark.parametrize("strength", [0.3, 0.55, 1.0])
@pytest.mark.parametrize(
    ("kind", "sampler"),
    [*((kind, "") for kind in KINDS), ("sd", "Euler a"), ("sd", "Heun"), ("sd", "DDIM"), ("sdxl", "DPM++ 2M Karras")],
)
def test_drawing_begins_where_diffusers_begins(pipelines: Pipelines, kind: str, sampler: str, strength: float) -> None:
    pipe = pipelines(kind)
    family, theirs = trainable.family_of(pipe, CPU.place), copy.copy(AutoPipelineForImage2Image.from_pipe(pipe))
    scheduler = family.schedule(sampler, STEPS, SIDE, SIDE)
    theirs.__dict__["scheduler"] = copy.deepcopy(scheduler)
    with torch.inference_mode():
        timesteps, _ = theirs.get_timesteps(STEPS, strength, CPU.place)
        expected = _diffusers_prepares(theirs, _pixels(), timesteps[:1], seed=4)
        generator = torch.Generator("cpu").manual_seed(4)
        source = Source(family.encode_start(_pixels()), strength)
        ours = family.prepare((SIDE, SIDE), generator, scheduler, source).latents
    assert torch.equal(scheduler.timesteps[first_call(scheduler, strength) :], timesteps)
    assert getattr(scheduler, "begin_index", None) == getattr(theirs.scheduler, "begin_index", None)
    assert torch.allclose(ours, expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["flux2", "flux2-dev", "krea2", "sd3"])
@pytest.mark.parametrize("sampler", ["", "Heun", "DPM++ 2M", "DPM++ 2S", "UniPC"])
@pytest.mark.parametrize("strength", [0.2, 0.55, 1.0])
def test_flows_without_a_pipeline_of_diffusers_begin_by_the_same_rule(
    pipelines: Pipelines, kind: str, sampler: str, strength: float
) -> None:
    """On the straight line from the picture to the noise; of FLUX.2 the middle of what its autoencoder gives."""
    family = trainable.family_of(pipelines(kind), CPU.place)
    scheduler: Any = family.schedule(sampler, STEPS, SIDE, SIDE)
    with torch.inference_mode():
        source = Source(family.encode_start(_pixels()), strength)
        beginning = family.prepare((SIDE, SIDE), torch.Generator("cpu").manual_seed(4), scheduler, source)
        generator = None if kind.startswith("flux2") else torch.Generator("cpu").manual_seed(4)
        picture = family.encode_image(_pixels(), generator)
        noise = torch.randn(picture.shape, generator=generator or torch.Generator("cpu").manual_seed(4))
    assert beginning.first == int(STEPS - STEPS * strength) * scheduler.order
    level = float(scheduler.sigmas[beginning.first])
    assert torch.allclose(beginning.latents, (1 - level) * picture + level * noise, atol=1e-4)
    assert scheduler.begin_index == beginning.first
