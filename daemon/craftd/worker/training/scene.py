"""One picture drawn by a family's verbs, step by step: samples of a training, and pictures of a class."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from craftd.worker import samplers
from craftd.worker.families.base import Family, ModelRow
from craftd.worker.picture import Pixels


@dataclass(frozen=True)
class Scene:
    """What is drawn."""

    prompt: str
    seed: int
    width: int
    height: int
    steps: int
    guidance_scale: float


class Computing(Protocol):
    def __call__(self) -> AbstractContextManager[Any]: ...


def denoise(scene: Scene, family: Family, computing: Computing) -> Generator[None, None, torch.Tensor]:
    """The finished latents; hands back after each step."""
    with torch.no_grad(), computing():
        conditioning = family.encode(scene.prompt, "", scene.guidance_scale)
        scheduler = family.schedule("", scene.steps, scene.width, scene.height)
        generator = torch.Generator("cpu").manual_seed(scene.seed)
        latents = family.prepare(scene.width, scene.height, generator) * samplers.noise_deviation(scheduler)
    arguments = samplers.step_arguments(scheduler, generator)
    for timestep in scheduler.timesteps:
        yield
        with torch.no_grad(), computing():
            row = ModelRow(samplers.scaled(scheduler, latents, timestep), timestep, conditioning)
            (output,) = family.predict([row])
        stepped = scheduler.step(output.to(latents.dtype), timestep, latents, **arguments, return_dict=False)
        latents = stepped[0]
    finished: torch.Tensor = latents
    return finished


def decode(latents: torch.Tensor, family: Family) -> Pixels:
    with torch.no_grad():
        return family.decode(latents)[0]
