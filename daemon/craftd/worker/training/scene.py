"""One picture drawn by a family's verbs, step by step: samples of a training, and pictures of a class."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from craftd.worker import samplers
from craftd.worker.families.base import Conditioning, Family, ModelRow
from craftd.worker.picture import Pixels
from craftd.worker.samplers import Scheduler


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


class Painting:
    """A scene half drawn. It may go on with another family over the same weights."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._latents: torch.Tensor | None = None
        self._conditioning: Conditioning | None = None
        self._scheduler: Scheduler | None = None
        self._generator = torch.Generator("cpu").manual_seed(scene.seed)
        self._calls = 0

    @property
    def is_done(self) -> bool:
        return self._scheduler is not None and self._calls == len(self._scheduler.timesteps)

    @property
    def latents(self) -> torch.Tensor:
        assert self._latents is not None
        return self._latents

    def advance(self, family: Family, computing: Computing) -> None:
        """One step."""
        with torch.no_grad(), computing():
            if self._scheduler is None:
                self._begin(family)
            assert self._scheduler is not None and self._conditioning is not None
            timestep = self._scheduler.timesteps[self._calls]
            sample = samplers.scaled(self._scheduler, self.latents, timestep)
            (output,) = family.predict([ModelRow(sample, timestep, self._conditioning)])
        arguments = samplers.step_arguments(self._scheduler, self._generator)
        given = output.to(self.latents.dtype)
        self._latents = self._scheduler.step(given, timestep, self.latents, **arguments, return_dict=False)[0]
        self._calls += 1

    def _begin(self, family: Family) -> None:
        scene = self._scene
        self._conditioning = family.encode(scene.prompt, "", scene.guidance_scale)
        self._scheduler = family.schedule("", scene.steps, scene.width, scene.height)
        noise = family.prepare(scene.width, scene.height, self._generator)
        self._latents = noise * samplers.noise_deviation(self._scheduler)


def decode(latents: torch.Tensor, family: Family) -> Pixels:
    with torch.no_grad():
        return family.decode(latents)[0]
