"""craft's own denoise loop: rows of different samplers, steps and guidance in one model call.

`begin`, `advance` and `decode` draw with any family: a `Denoiser` for the engine, a training for its samples.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import torch
from craft_protos.dispatch import Dispatch
from craft_protos.provenance import AppliedLora
from craft_protos.reasons import CraftError, invalid

from craftd.worker.engine.conditionings import Course, Encoding, Joined, steady
from craftd.worker.engine.row import AsItIs, Drawing
from craftd.worker.engine.sources import Sources
from craftd.worker.engine.stages import Made
from craftd.worker.families import samplers
from craftd.worker.families.base import Conditioning, Family, ModelRow
from craftd.worker.families.controls import RowControl
from craftd.worker.families.latents import Kept, Source
from craftd.worker.families.samplers import Scheduler
from craftd.worker.inputs.ahead import ReadAhead
from craftd.worker.inputs.canvas import Canvas, of_made
from craftd.worker.inputs.canvases import Canvases
from craftd.worker.inputs.controls import ControlsAhead
from craftd.worker.inputs.references import References
from craftd.worker.lora.adapter_manager import NONE, AdapterManager, Applied
from craftd.worker.models.offload import Offloading
from craftd.worker.output import picture
from craftd.worker.output.picture import Pixels

_CACHED_SCHEDULES = 32
_CONTROL_COST = 0.5  # of a control model's call, against the UNet's: it is that one's way down


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
    calls: int = 0
    sketch: Pixels | None = field(default=None, repr=False)  # what the latents seem to become

    @property
    def group(self) -> Hashable:
        shown = tuple(tuple(one.shape) for one in self.references)
        return (tuple(self.latents.shape), shown, self.joined.first.group, self.applied.group)

    @property
    def joined(self) -> Joined:
        """The prompts of the next model call."""
        return self.course.at(self.step if samplers.is_adaptive(self.scheduler) else self.calls)

    @property
    def step(self) -> int:
        return samplers.completed_steps(self.calls, self.steps, self.scheduler, self.first)

    @property
    def of(self) -> int:
        calls = len(self.scheduler.timesteps) - self.first
        return samplers.completed_steps(calls, self.steps, self.scheduler, self.first)

    @property
    def is_done(self) -> bool:
        return self._next == len(self.scheduler.timesteps)

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

    def model_rows(self) -> list[ModelRow]:
        """What the next model call is given: a row, or one for each of several prompts."""
        sample = samplers.scaled(self.scheduler, self.latents, self.timestep)
        calls = self.calls, len(self.scheduler.timesteps) - self.first
        if samplers.is_adaptive(self.scheduler):
            calls = self.step, self.of
        controls = [one for one in self.controls if one.counts_at(*calls)]
        shown: dict[str, Any] = {"references": self.references, "controls": controls, "beside": self.beside}
        if samplers.wants_unguided(self.scheduler):
            shown["unguided"] = []
        return self.joined.rows(ModelRow(sample, self.timestep, self.joined.first, self.applied, **shown))

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
        beginning = family.prepare(size, generator, scheduler, source)
        return Denoising(
            course=steady(conditioning) if isinstance(conditioning, Conditioning) else conditioning,
            scheduler=scheduler,
            steps=steps,
            **vars(beginning),
            cost=(width * height + family.pixels_of(references)) * conditioning.model_rows,
            references=references,
            controls=shown,
            step_arguments=samplers.step_arguments(scheduler, generator),
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


class Denoiser:
    """Draws jobs with a family's model and the LoRAs that they ask for."""

    def __init__(
        self,
        family: Family,
        adapters: AdapterManager,
        canvases: Canvases,
        references: References,
        controls: ControlsAhead,
        *,
        precision: str,
        resident_bytes: int,
        device: torch.device,
        weights: str = "",
        notice: str = "",
        pipe: Any = None,
        offloading: Offloading | None = None,
    ) -> None:
        self.pipe = pipe
        self.precision = precision
        self.weights = weights
        self.notice = notice
        self._model_bytes = resident_bytes
        self._offloading = offloading
        self._adapters = adapters
        self._canvases = canvases
        self._references = references
        self._controls = controls
        self._sources = Sources(family)
        self.is_tiled = False
        self._family = family
        self._device = device
        self._last_step: Any = None  # a CUDA event
        self._unused_schedule = lru_cache(_CACHED_SCHEDULES)(family.schedule)
        self._encoding = Encoding(family, adapters)

    @property
    def _ahead(self) -> tuple[ReadAhead[Any], ...]:
        """What is read of pictures before a row begins."""
        return self._canvases, self._references, self._controls

    @property
    def resident_bytes(self) -> int:
        return self._model_bytes + self._adapters.size_bytes

    @property
    def is_reading(self) -> bool:
        return self._adapters.is_reading or any(one.is_reading for one in self._ahead)

    def remarks(self, job: Dispatch) -> Sequence[str]:
        said = [*self._encoding.remarks(job.drawing.text), *samplers.remarks(job.drawing.sampler)]
        return [*said, *self._adapters.remarks(job), *self._canvases.remarks(job)]

    def want(self, jobs: Sequence[Dispatch]) -> Mapping[str, CraftError]:
        errors = dict(self._adapters.want(jobs))
        for one in self._ahead:
            errors |= one.want(jobs)
        return errors

    def is_ready(self, job: Dispatch) -> bool:
        return self._adapters.is_ready(job) and all(one.is_ready(job) for one in self._ahead)

    def begin(
        self, job: Dispatch, seed: int, networks: Mapping[str, Any], made: Made | None = None
    ) -> Denoising | AsItIs:
        spec = job.drawing
        canvas = self._canvas(job, made)
        size = (spec.width, spec.height) if canvas is None else canvas.size
        scheduler = self._unused_schedule(spec.sampler, spec.steps, *size)
        if canvas is not None and (canvas.is_blank or not _strength(job)):
            return AsItIs(canvas.base, type(scheduler).__name__)
        shown = self._references.of(job)
        applied = self._adapters.acquire(job)
        try:
            with torch.inference_mode():
                course = self._encoding.course(
                    spec.text, applied, shown, calls=samplers.laid_out(scheduler), is_again=made is not None
                )
                _check_guided(course, scheduler)
                source = None if canvas is None else self._sources.of(canvas, _strength(job))
                seen = self._sources.references(shown)
                controls = self._sources.controls(job, self._controls.of(job), networks)
            row = begin(
                self._family,
                course,
                copy.deepcopy(scheduler),
                size=size,
                steps=spec.steps,
                seed=seed,
                source=source,
                references=seen,
                controls=controls,
            )
            row.applied, row.adapters, row.canvas = applied, self._adapters, canvas
            row.cost += int(row.cost * _CONTROL_COST * len(controls))
            return row
        except BaseException:
            self._adapters.release(applied)
            raise

    def _canvas(self, job: Dispatch, made: Made | None) -> Canvas | None:
        """What it begins from, if not from noise alone."""
        if made is not None:
            return of_made(made.pixels)
        return None if job.drawing.start is None else self._canvases.get(job)

    def that_fit(self, drawings: Sequence[Drawing]) -> int:
        return self._adapters.that_fit([(row.applied, row.joined.model_rows) for row in _ours(drawings)])

    def advance(self, drawings: Sequence[Drawing], *, with_preview: Sequence[bool]) -> list[Exception | None]:
        self._pace()
        return advance(self._family, _ours(drawings), self._applied, with_preview=with_preview)

    def render(self, drawings: Sequence[Drawing]) -> list[Pixels]:
        drawn = [drawing for drawing in drawings if isinstance(drawing, Denoising)]
        decoded = iter(decode(self._family, drawn, self.precision) if drawn else ())
        return [drawing.pixels if isinstance(drawing, AsItIs) else next(decoded) for drawing in drawings]

    def offload(self) -> bool:
        return self._offloading is not None and self._offloading.descend()

    def tile(self) -> bool:
        self.is_tiled = self.is_tiled or self._family.tile()
        return self.is_tiled

    def close(self) -> None:
        self._encoding.clear()
        self._sources.clear()
        for one in self._ahead:
            one.close()
        self._adapters.close()

    def _pace(self) -> None:
        """Stay one step ahead of a CUDA device, no further: else progress and cancel would lag behind."""
        if self._device.type == "cuda":
            if self._last_step is not None:
                self._last_step.synchronize()
            cuda: Any = torch.cuda
            self._last_step = cuda.Event()
            self._last_step.record()

    def _applied(self, rows: Sequence[ModelRow]) -> AbstractContextManager[None]:
        return self._adapters.denoising([row.loras for row in self._family.order(rows)])


def _check_guided(course: Course, scheduler: Scheduler) -> None:
    """Raises INVALID_FIELD where a sampler steps by what the model says without the prompt, and it is not asked."""
    if samplers.wants_unguided(scheduler) and any(one.first.negative is None for one in course.joined):
        why = "is too small for the sampler: its noise is predicted without the prompt, which needs guidance"
        raise invalid("guidance_scale", why, "take one above 1, with a model that takes it, or another sampler")


def _strength(job: Dispatch) -> float:
    start = job.drawing.start
    return 1.0 if start is None else start.share


def _take(
    family: Family, row: Denoising, inputs: Sequence[ModelRow], said: Sequence[torch.Tensor], wants_preview: bool
) -> Exception | None:
    try:
        given, output = inputs[0], row.joined.guided(said)
        row.take(output, given.unguided if len(inputs) == 1 else said[:1])
        shows = wants_preview and not row.is_done
        row.sketch = (
            family.sketch(samplers.clean(given.sample, given.timestep, output, row.scheduler)) if shows else None
        )
    except Exception as exc:  # a scheduler's failure is its own row's, not the batch's
        return exc
    return None


def _ours(drawings: Sequence[Drawing]) -> list[Denoising]:
    rows = [drawing for drawing in drawings if isinstance(drawing, Denoising)]
    assert len(rows) == len(drawings)
    return rows
