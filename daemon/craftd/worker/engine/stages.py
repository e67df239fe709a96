"""What becomes of a row, stage by stage: it is drawn, enlarged, drawn again, enlarged again; each by a model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from craft_protos.dispatch import Dispatch, ModelManifest
from craft_protos.generate import Hires, Start, steps_of
from craft_protos.reasons import CraftError, invalid

from craftd.architectures.registry import UPSCALER
from craftd.worker.inputs.fitting import Size
from craftd.worker.output.picture import Pixels


@dataclass(frozen=True)
class Made:
    """What a stage has made. `size`: what the next one brings it to; None: as its job says."""

    pixels: Pixels
    size: Size | None = None


@dataclass(frozen=True)
class Stage:
    """`asked`: the job, as its model is asked for it. `steps`: about how many it will take."""

    asked: Dispatch
    steps: int = 1
    size_of_next: Size | None = None


def check(job: Dispatch) -> None:
    """Raises INVALID_FIELD where there is nothing to do, and as `of`."""
    is_drawn = any(stage.asked.model.family != UPSCALER.family for stage in of(job))
    if not job.indices or (is_drawn and job.drawing.steps < 1):
        raise invalid("steps", "there is nothing to draw", "ask for one image and one step or more")


def of(job: Dispatch) -> tuple[Stage, ...]:
    """All of a job's. Raises CORRUPT_FILE where an upscaler that it names did not come with it."""
    return tuple(_of(job))


def _of(job: Dispatch) -> Iterator[Stage]:
    spec, hires = job.drawing, job.drawing.hires
    if job.model.family == UPSCALER.family:
        yield Stage(job)
        return
    yield Stage(job, steps_of(spec.steps, spec.start), None if hires is None else hires.size)
    if hires is not None:
        yield Stage(_enlarging(job, hires.upscaler))
        again = _again(job, hires)
        yield Stage(again, steps_of(again.drawing.steps, again.drawing.start))
    if spec.upscale is not None:
        yield Stage(_enlarging(job, spec.upscale.model))


def _enlarging(job: Dispatch, upscaler: str) -> Dispatch:
    """Without what only drawing needs."""
    spec = replace(job.drawing, loras=(), start=None, mask=None, references=(), controls=())
    return replace(job, model=_upscaler(job, upscaler), spec=spec, files=())


def _again(job: Dispatch, hires: Hires) -> Dispatch:
    """Image-to-image of what comes from the stage before."""
    width, height = hires.size
    steps, start = hires.steps or job.drawing.steps, Start("", hires.strength)
    return replace(job, spec=replace(job.drawing, width=width, height=height, steps=steps, start=start, mask=None))


def _upscaler(job: Dispatch, name: str) -> ModelManifest:
    for manifest in job.upscalers:
        if manifest.name == name:
            return manifest
    raise CraftError("CORRUPT_FILE", f"the upscaler {name} did not come with its job", "try again")
