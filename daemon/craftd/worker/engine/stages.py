"""What becomes of a row, stage by stage: drawn, refined, enlarged, drawn again, enlarged again; each by a model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from craft_protos.dispatch import Dispatch, ModelManifest
from craft_protos.generate import Hires, Start, steps_of
from craft_protos.reasons import CraftError, invalid

from craftd.architectures.registry import UPSCALER
from craftd.worker.inputs.fitting import Size
from craftd.worker.output.picture import Pixels

if TYPE_CHECKING:
    import torch

    from craftd.worker.inputs.canvas import Canvas


@dataclass(frozen=True)
class HalfDone:
    """Latents that a model has left after that share of the noise schedule, for another one to go on with."""

    latents: torch.Tensor
    generator: torch.Generator  # that their noise was drawn with
    canvas: Canvas | None  # that they are drawn on
    calls: int = 0  # of the model that left them


@dataclass(frozen=True)
class Made:
    """What a stage has made. `size`: what the next one brings it to; None: as its job says."""

    pixels: Pixels
    size: Size | None = None


Before = Made | HalfDone  # what a stage begins from


@dataclass(frozen=True)
class Stage:
    """`asked`: the job, as its model is asked for it. `steps`: about how many it will take."""

    asked: Dispatch
    steps: int = 1
    size_of_next: Size | None = None
    is_half: bool = False  # the next stage goes on with its latents


def check(job: Dispatch) -> None:
    """Raises INVALID_FIELD where there is nothing to do, and as `of`."""
    is_drawn = any(stage.asked.model.family != UPSCALER.family for stage in of(job))
    if not job.indices or (is_drawn and job.drawing.steps < 1):
        raise invalid("steps", "there is nothing to draw", "ask for one image and one step or more")


def of(job: Dispatch) -> tuple[Stage, ...]:
    """All of a job's. Raises CORRUPT_FILE where a model that it names did not come with it."""
    return tuple(_of(job))


def _of(job: Dispatch) -> Iterator[Stage]:
    spec, hires = job.drawing, job.drawing.hires
    if job.model.family == UPSCALER.family:
        yield Stage(job)
        return
    if hires is None:
        yield from _refined(job)
    else:
        yield Stage(replace(job, spec=replace(spec, refiner=None)), spec.steps, hires.size)
        yield Stage(_enlarging(job, hires.upscaler))
        yield from _refined(_again(job, hires))
    if spec.upscale is not None:
        yield Stage(_enlarging(job, spec.upscale.model))


def _refined(job: Dispatch) -> Iterator[Stage]:
    """A job's last drawing: by its model, and by the refiner where it names one."""
    spec, refiner = job.drawing, job.drawing.refiner
    steps = steps_of(spec.steps, spec.start)
    if refiner is None or not steps:
        yield Stage(job, steps)
        return
    last = spec.steps - round(spec.steps * refiner.share)
    yield Stage(job, max(1, steps - last), is_half=True)
    alone = replace(spec, loras=(), start=None, controls=())
    asked = replace(job, model=_later(job, refiner.model), spec=alone, files=(), controls=())
    yield Stage(asked, max(1, last))


def _enlarging(job: Dispatch, upscaler: str) -> Dispatch:
    """Without what only drawing needs."""
    spec = replace(job.drawing, loras=(), start=None, mask=None, references=(), controls=())
    return replace(job, model=_later(job, upscaler), spec=spec, files=())


def _again(job: Dispatch, hires: Hires) -> Dispatch:
    """Image-to-image of what comes from the stage before."""
    width, height = hires.size
    steps, start = hires.steps or job.drawing.steps, Start("", hires.strength)
    return replace(job, spec=replace(job.drawing, width=width, height=height, steps=steps, start=start, mask=None))


def _later(job: Dispatch, name: str) -> ModelManifest:
    for manifest in job.later_models:
        if manifest.name == name:
            return manifest
    raise CraftError("CORRUPT_FILE", f"the model {name} of a later stage did not come with its job", "try again")
