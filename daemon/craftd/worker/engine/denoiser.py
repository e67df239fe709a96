"""Draws jobs with a loaded model: what a row begins from is made ready here, the loop itself is in `denoise.py`."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from craft_protos.dispatch import Dispatch
from craft_protos.generate import GenerateSpec
from craft_protos.reasons import CraftError, invalid

from craftd.worker.engine.conditionings import Course, Encoding
from craftd.worker.engine.denoise import Denoising, advance, begin, decode, go_on, refined_from
from craftd.worker.engine.row import AsItIs, Drawing
from craftd.worker.engine.sources import Sources
from craftd.worker.engine.stages import Before, HalfDone, Made
from craftd.worker.families import samplers
from craftd.worker.families.base import Family, ModelRow
from craftd.worker.families.samplers import Scheduler
from craftd.worker.inputs.ahead import ReadAhead
from craftd.worker.inputs.canvas import Canvas, of_made
from craftd.worker.inputs.canvases import Canvases
from craftd.worker.inputs.controls import ControlsAhead
from craftd.worker.inputs.references import References
from craftd.worker.lora.adapter_manager import NONE, AdapterManager
from craftd.worker.models.offload import Offloading
from craftd.worker.output.picture import Pixels

_CACHED_SCHEDULES = 32
_CONTROL_COST = 0.5  # of a control model's call, against the UNet's: it is that one's way down


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
        said += _of_refiner(job.drawing)
        return [*said, *self._adapters.remarks(job), *self._canvases.remarks(job)]

    def want(self, jobs: Sequence[Dispatch]) -> Mapping[str, CraftError]:
        errors = dict(self._adapters.want(jobs))
        for one in self._ahead:
            errors |= one.want(jobs)
        return errors

    def is_ready(self, job: Dispatch) -> bool:
        return self._adapters.is_ready(job) and all(one.is_ready(job) for one in self._ahead)

    def begin(
        self, job: Dispatch, seed: int, networks: Mapping[str, Any], made: Before | None = None
    ) -> Denoising | AsItIs:
        spec = job.drawing
        if isinstance(made, HalfDone):
            return self._go_on(job, made)
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
            if spec.refiner is not None:
                refined_from(row, spec.refiner.share)
            row.applied, row.adapters, row.canvas = applied, self._adapters, canvas
            row.cost += int(row.cost * _CONTROL_COST * len(controls))
            return row
        except BaseException:
            self._adapters.release(applied)
            raise

    def _go_on(self, job: Dispatch, half: HalfDone) -> Denoising:
        """With what another model has left, and the words alone."""
        spec, side = job.drawing, self._family.latent_side
        height, width = (one * side for one in half.latents.shape[-2:])
        scheduler = copy.deepcopy(self._unused_schedule(spec.sampler, spec.steps, width, height))
        with torch.inference_mode():
            shown, calls = self._references.of(job), samplers.laid_out(scheduler)
            course = self._encoding.course(spec.text, NONE, shown, calls=calls, is_again=spec.hires is not None)
            _check_guided(course, scheduler)
            half = replace(half, latents=half.latents.to(course.at(0).first.positive))
        assert spec.refiner is not None
        return go_on(self._family, course, scheduler, half, steps=spec.steps, share=spec.refiner.share)

    def _canvas(self, job: Dispatch, made: Made | None) -> Canvas | None:
        """What it begins from, if not from noise alone."""
        if made is not None:
            return of_made(made.pixels)
        return None if job.drawing.start is None else self._canvases.get(job)

    def that_fit(self, drawings: Sequence[Drawing]) -> int:
        return self._adapters.that_fit([(row.present, row.joined.model_rows) for row in _ours(drawings)])

    def advance(self, drawings: Sequence[Drawing], *, with_preview: Sequence[bool]) -> list[Exception | None]:
        self._pace()
        return advance(self._family, _ours(drawings), self._applied, with_preview=with_preview)

    def render(self, drawings: Sequence[Drawing]) -> list[Pixels | HalfDone]:
        drawn = [drawing for drawing in drawings if isinstance(drawing, Denoising) and drawing.last is None]
        decoded = iter(decode(self._family, drawn, self.precision) if drawn else ())
        return [ready[0] if (ready := _ready(drawing)) else next(decoded) for drawing in drawings]

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


def _of_refiner(spec: GenerateSpec) -> Iterator[str]:
    """What of the job does nothing in its last steps."""
    for name, what in (("loras", "LoRAs"), ("controls", "control pictures")):
        if spec.refiner is not None and getattr(spec, name):
            yield f"the refiner {spec.refiner.model} draws the last steps without the {what}"


def _ready(drawing: Drawing) -> tuple[Pixels | HalfDone, ...]:
    """What of it is ready without an autoencoder."""
    match drawing:
        case AsItIs():
            return (drawing.pixels,)
        case Denoising(last=int()):
            return (drawing.left(),)
    return ()


def _ours(drawings: Sequence[Drawing]) -> list[Denoising]:
    rows = [drawing for drawing in drawings if isinstance(drawing, Denoising)]
    assert len(rows) == len(drawings)
    return rows
