"""craft's own denoise loop: rows of different samplers, steps and guidance in one model call.

`begin`, `go_on`, `advance` and `decode` draw with any family: a `Denoiser` for the engine, a training for its samples.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from craft_protos.provenance import AppliedLora
from craft_protos.reasons import CraftError, invalid

from craftd.worker.engine.conditionings import Course, Joined, steady
from craftd.worker.engine.stages import HalfDone
from craftd.worker.families import noise, samplers
from craftd.worker.families.base import Conditioning, Family, ModelRow
from craftd.worker.families.controls import RowControl
from craftd.worker.families.latents import Kept, Source
from craftd.worker.families.samplers import Scheduler
from craftd.worker.inputs.canvas import Canvas
from craftd.worker.lora.adapter_manager import NONE, AdapterManager, Applied
from craftd.worker.output import picture
from craftd.worker.output.picture import Pixels
from craftd.worker.process.device import uploaded

Around = Callable[[Sequence[ModelRow]], AbstractContextManager[Any]]  # what holds while these are computed


@dataclass(eq=False)
class Denoising:
    """One image between two steps. It holds nothing of the model: another one may draw the next step."""

    course: Course
    scheduler: Scheduler
    steps: int
    latents: torch.Tensor
    cost: int
    step_arguments: dict[str, Any]
    applied: Applied = NONE
    adapters: AdapterManager | None = None  # whose `applied` is
    first: int = 0  # the schedule's model call that it began with
    kept: Kept | None = None  # what a mask keeps of the picture that it began from
    beside: torch.Tensor | None = None  # what a model for inpainting is given at each call
    canvas: Canvas | None = None  # what it is drawn on
    references: Sequence[torch.Tensor] = ()  # latents of the pictures that the model is shown
    controls: Sequence[RowControl] = ()
    generator: torch.Generator | None = None  # that its noise is drawn with
    last: int | None = None  # the schedule's model call that another model begins with; None: it makes all
    before: int = 0  # model calls that another model has made of it
    calls: int = 0
    sketch: Pixels | None = field(default=None, repr=False)  # what the latents seem to become

    @property
    def group(self) -> Hashable:
        shown = tuple(tuple(one.shape) for one in self.references)
        return (tuple(self.latents.shape), shown, self.joined.first.group, self.present.group)

    @property
    def present(self) -> Applied:
        """The LoRAs of the next model call."""
        return self.applied.at(*self._counted) if self.applied.times else self.applied

    @property
    def _counted(self) -> tuple[int, int]:
        """The number of the next model call, of so many: of a sampler that finds out how many it makes, of steps."""
        if samplers.is_adaptive(self.scheduler):
            return self.step, self.of
        return self.calls, len(self.scheduler.timesteps) - self.first

    @property
    def joined(self) -> Joined:
        """The prompts of the next model call."""
        return self.course.at(self.step if samplers.is_adaptive(self.scheduler) else self.before + self.calls)

    @property
    def step(self) -> int:
        return samplers.completed_steps(self.calls, self.steps, self.scheduler, self.first)

    @property
    def of(self) -> int:
        return samplers.completed_steps(self._end - self.first, self.steps, self.scheduler, self.first)

    @property
    def is_done(self) -> bool:
        return self._next == self._end

    @property
    def scheduler_name(self) -> str:
        return type(self.scheduler).__name__

    @property
    def loras(self) -> Sequence[AppliedLora]:
        return self.applied.report

    @property
    def timestep(self) -> torch.Tensor:
        return self.scheduler.timesteps[self._next]

    @property
    def _next(self) -> int:
        """The schedule's model call that comes next."""
        return self.first + self.calls

    @property
    def _end(self) -> int:
        """The schedule's model call that it does not make any more."""
        return len(self.scheduler.timesteps) if self.last is None else self.last

    def model_rows(self) -> list[ModelRow]:
        """What the next model call is given: a row, or one for each of several prompts."""
        sample = samplers.scaled(self.scheduler, self.latents, self.timestep)
        controls = [one for one in self.controls if one.counts_at(*self._counted)]
        shown: dict[str, Any] = {"references": self.references, "controls": controls, "beside": self.beside}
        if samplers.wants_unguided(self.scheduler):
            shown["unguided"] = []
        timestep = uploaded(self.timestep, self.latents.device)
        return self.joined.rows(ModelRow(sample, timestep, self.joined.first, self.present, **shown))

    def take(self, output: torch.Tensor, unguided: Sequence[torch.Tensor] | None = None) -> None:
        """Step the scheduler with the model's output, and with what it is without the prompt where that is wanted."""
        given, arguments = output.to(self.latents.dtype), self.step_arguments
        if unguided and samplers.wants_unguided(self.scheduler):
            arguments = arguments | {"unguided": unguided[0]}
        stepped = self.scheduler.step(given, self.timestep, self.latents, **arguments, return_dict=False)
        self.latents = stepped[0]
        self.calls += 1
        if self.kept is not None:
            self.latents = self.kept.put_back(self.latents, self.scheduler, self._next)

    def left(self) -> HalfDone:
        """What another model goes on with."""
        assert self.generator is not None
        return HalfDone(self.latents, self.generator, self.canvas, self.calls)

    def finished(self, pixels: Pixels) -> Pixels:
        return pixels if self.canvas is None else self.canvas.finished(pixels)

    def preview(self) -> bytes:
        return b"" if self.sketch is None else picture.encode_preview(self.sketch)

    def close(self) -> None:
        self.sketch = None
        applied, self.applied = self.applied, NONE
        if self.adapters is not None:
            self.adapters.release(applied)


def begin(
    family: Family,
    conditioning: Conditioning | Course,
    scheduler: Scheduler,
    *,
    size: tuple[int, int],
    steps: int,
    seed: int,
    source: Source | None = None,
    references: Sequence[torch.Tensor] = (),
    controls: Sequence[RowControl] = (),
) -> Denoising:
    """Start a row. Random numbers are drawn in diffusers' order, so that a seed gives the same image."""
    width, height = size
    with torch.inference_mode():
        generator = torch.Generator("cpu").manual_seed(seed)
        shown = [replace(one, picture=family.draw_control(one.network, one.picture, generator)) for one in controls]
        noise.lend(scheduler)
        beginning = family.prepare(size, generator, scheduler, source)
        return Denoising(
            course=steady(conditioning) if isinstance(conditioning, Conditioning) else conditioning,
            scheduler=scheduler,
            steps=steps,
            **vars(beginning),
            cost=(width * height + family.pixels_of(references)) * conditioning.model_rows,
            references=references,
            controls=shown,
            generator=generator,
            step_arguments=samplers.step_arguments(scheduler, generator),
        )


def refined_from(row: Denoising, share: float) -> None:
    """Have the row end after that share of the noise schedule. Raises INVALID_FIELD where either model gets no step."""
    if samplers.is_adaptive(row.scheduler):
        why = "goes on after a share of the steps, and the sampler finds out by itself how many it makes"
        raise invalid("refiner", why, "take another sampler, or leave the refiner out")
    row.last = samplers.call_after(row.scheduler, share)
    if not row.first < row.last < len(row.scheduler.timesteps):
        which = "the model" if row.last <= row.first else "the refiner"
        why = f"{share:g} leaves {which} none of the steps that are done"
        raise invalid("refiner.switch", why, "take more steps, or a switch nearer to the middle of them")


def go_on(
    family: Family, course: Course, scheduler: Scheduler, half: HalfDone, *, steps: int, share: float
) -> Denoising:
    """Go on with what another model left after that share of the noise schedule: nothing is added to its latents."""
    first = samplers.call_before_end(scheduler, share)
    if (begin := getattr(scheduler, "set_begin_index", None)) is not None:
        begin(first)
    return Denoising(
        course=course,
        before=half.calls,
        scheduler=scheduler,
        steps=steps,
        latents=half.latents,
        cost=family.pixels_of([half.latents]) * course.model_rows,
        step_arguments=samplers.step_arguments(scheduler, half.generator),
        first=first,
        canvas=half.canvas,
        generator=half.generator,
    )


def advance(
    family: Family, rows: Sequence[Denoising], around: Around, *, with_preview: Sequence[bool]
) -> list[Exception | None]:
    """Make one model call for all rows, then step each row's scheduler; returns each row's error or None."""
    with torch.inference_mode():
        inputs = [row.model_rows() for row in rows]
        whole = [one for given in inputs for one in given]
        with around(whole):
            outputs = iter(family.predict(whole))
        said = [[next(outputs) for _ in given] for given in inputs]
        return [
            _take(family, row, given, each, wanted)
            for row, given, each, wanted in zip(rows, inputs, said, with_preview, strict=True)
        ]


def decode(family: Family, rows: Sequence[Denoising], precision: str) -> list[Pixels]:
    """The pixels of finished rows of one size. Raises JOB_FAILED where their latents are not finite."""
    with torch.inference_mode():
        latents = torch.cat([row.latents for row in rows])
        if not torch.isfinite(latents).all():
            raise CraftError(
                "JOB_FAILED",
                "the model gave numbers that are not finite",
                f"it was computed in {precision}; take another sampler, or set worker.precision to fp32",
            )
        return family.decode(latents)


def _take(
    family: Family, row: Denoising, inputs: Sequence[ModelRow], said: Sequence[torch.Tensor], wants_preview: bool
) -> Exception | None:
    try:
        given, output, timestep = inputs[0], row.joined.guided(said), row.timestep
        row.take(output, given.unguided if len(inputs) == 1 else said[:1])
        shows = wants_preview and not row.is_done
        row.sketch = family.sketch(samplers.clean(given.sample, timestep, output, row.scheduler)) if shows else None
    except Exception as exc:  # a scheduler's failure is its own row's, not the batch's
        return exc
    return None
