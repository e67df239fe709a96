"""craft's own denoise loop: rows of different samplers, steps and guidance in one model call."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from craft_protos.reasons import CraftError

from craftd.worker import picture, samplers
from craftd.worker.families.base import Conditioning, Family, ModelRow
from craftd.worker.kept import Kept
from craftd.worker.lora.residents import NONE, Applied, AppliedLora, Residents
from craftd.worker.messages import Draw
from craftd.worker.picture import Pixels
from craftd.worker.row import Drawing
from craftd.worker.samplers import Scheduler

_KEPT_PROMPTS_BYTES = 8 << 20
_KEPT_SCHEDULES = 32


@dataclass(eq=False)
class Denoising:
    """One image between two steps."""

    family: Family
    conditioning: Conditioning
    scheduler: Scheduler
    steps: int
    latents: torch.Tensor
    cost: int
    step_arguments: dict[str, Any]
    applied: Applied
    residents: Residents
    calls: int = 0
    clean: torch.Tensor | None = field(default=None, repr=False)  # what the latents seem to become

    @property
    def group(self) -> Hashable:
        return (tuple(self.latents.shape), self.conditioning.text_length, self.applied.group)

    @property
    def step(self) -> int:
        return samplers.completed_steps(self.calls, self.steps, self.scheduler)

    @property
    def of(self) -> int:
        return samplers.completed_steps(len(self.scheduler.timesteps), self.steps, self.scheduler)

    @property
    def is_done(self) -> bool:
        return self.calls == len(self.scheduler.timesteps)

    @property
    def scheduler_name(self) -> str:
        return type(self.scheduler).__name__

    @property
    def loras(self) -> Sequence[AppliedLora]:
        return self.applied.told

    @property
    def timestep(self) -> torch.Tensor:
        return self.scheduler.timesteps[self.calls]

    def model_row(self) -> ModelRow:
        sample = samplers.scaled(self.scheduler, self.latents, self.timestep)
        return ModelRow(sample, self.timestep, self.conditioning, self.applied)

    def take(self, output: torch.Tensor) -> None:
        """Step the scheduler with the model's output."""
        stepped = self.scheduler.step(output, self.timestep, self.latents, **self.step_arguments, return_dict=False)
        self.latents = stepped[0]
        self.calls += 1

    def preview(self) -> bytes:
        if self.clean is None:
            return b""
        return picture.encode_preview(self.family.sketch(self.clean))

    def close(self) -> None:
        self.clean = None
        applied, self.applied = self.applied, NONE
        self.residents.release(applied)


class Denoiser:
    """The runner over a family."""

    def __init__(
        self,
        family: Family,
        residents: Residents,
        *,
        precision: str,
        resident_bytes: int,
        device: torch.device,
        notice: str = "",
        pipe: Any = None,
    ) -> None:
        self.pipe = pipe
        self.precision = precision
        self.notice = notice
        self._model_bytes = resident_bytes
        self._residents = residents
        self.is_tiled = False
        self._family = family
        self._device = device
        self._last_step: Any = None  # a CUDA event
        self._unused_schedule = lru_cache(_KEPT_SCHEDULES)(family.schedule)
        self._encoded: Kept[Conditioning] = Kept(_KEPT_PROMPTS_BYTES, lambda conditioning: conditioning.size_bytes)

    @property
    def resident_bytes(self) -> int:
        return self._model_bytes + self._residents.size_bytes

    @property
    def is_reading(self) -> bool:
        return self._residents.is_reading

    def want(self, jobs: Sequence[Draw]) -> Mapping[str, CraftError]:
        return self._residents.want(jobs)

    def is_ready(self, job: Draw) -> bool:
        return self._residents.is_ready(job)

    def begin(self, job: Draw, seed: int) -> Denoising:
        """In the order of diffusers' pipelines, so that the generator gives the same numbers."""
        applied = self._residents.acquire(job)
        try:
            with torch.inference_mode():
                return self._begin(job, seed, applied)
        except BaseException:
            self._residents.release(applied)
            raise

    def _begin(self, job: Draw, seed: int, applied: Applied) -> Denoising:
        conditioning = self._encode(job, applied)
        scheduler = copy.deepcopy(self._unused_schedule(job.sampler, job.steps, job.width, job.height))
        generator = torch.Generator("cpu").manual_seed(seed)
        noise = self._family.prepare(job.width, job.height, generator)
        latents = noise * samplers.noise_deviation(scheduler)
        return Denoising(
            family=self._family,
            conditioning=conditioning,
            scheduler=scheduler,
            steps=job.steps,
            latents=latents,
            cost=job.width * job.height * conditioning.model_rows,
            step_arguments=samplers.step_arguments(scheduler, generator),
            applied=applied,
            residents=self._residents,
        )

    def that_fit(self, drawings: Sequence[Drawing]) -> int:
        return self._residents.that_fit([(row.applied, row.conditioning.model_rows) for row in _ours(drawings)])

    def advance(self, drawings: Sequence[Drawing], *, with_preview: Sequence[bool]) -> list[Exception | None]:
        rows = _ours(drawings)
        self._pace()
        with torch.inference_mode():
            inputs = [row.model_row() for row in rows]
            with self._residents.denoising([row.loras for row in self._family.order(inputs)]):
                outputs = self._family.predict(inputs)
            return [
                _take(row, given, output, wanted)
                for row, given, output, wanted in zip(rows, inputs, outputs, with_preview, strict=True)
            ]

    def render(self, drawings: Sequence[Drawing]) -> list[Pixels]:
        with torch.inference_mode():
            latents = torch.cat([row.latents for row in _ours(drawings)])
            if not torch.isfinite(latents).all():
                raise CraftError(
                    "JOB_FAILED",
                    "the model gave numbers that are not finite",
                    f"it was computed in {self.precision}; try --precision fp32, or another sampler",
                )
            return self._family.decode(latents)

    def offload(self) -> bool:
        return self._family.offload()

    def tile(self) -> bool:
        self.is_tiled = self.is_tiled or self._family.tile()
        return self.is_tiled

    def close(self) -> None:
        self._encoded.clear()
        self._residents.close()

    def _pace(self) -> None:
        """Stay one step ahead of a CUDA device, no further: else progress and cancel would lag behind."""
        if self._device.type == "cuda":
            if self._last_step is not None:
                self._last_step.synchronize()
            cuda: Any = torch.cuda
            self._last_step = cuda.Event()
            self._last_step.record()

    def _encode(self, job: Draw, applied: Applied) -> Conditioning:
        asked = (job.prompt, job.negative_prompt, job.guidance_scale)
        return self._encoded.get((*asked, applied.text_key), lambda: self._encode_with(asked, applied))

    def _encode_with(self, asked: tuple[str, str, float], applied: Applied) -> Conditioning:
        if not applied.text_key:
            return self._family.encode(*asked)
        try:
            for text in self._family.texts:
                text.variant = applied.text_key
            with self._residents.encoding(applied):
                return self._family.encode(*asked)
        finally:
            for text in self._family.texts:
                text.variant = ()


def _take(row: Denoising, given: ModelRow, output: torch.Tensor, wants_preview: bool) -> Exception | None:
    try:
        row.clean = _clean(given, output, row.scheduler) if wants_preview else None
        row.take(output)
    except Exception as exc:  # a scheduler's failure is its own row's, not the batch's
        return exc
    return None


def _ours(drawings: Sequence[Drawing]) -> list[Denoising]:
    rows = [drawing for drawing in drawings if isinstance(drawing, Denoising)]
    assert len(rows) == len(drawings)
    return rows


def _clean(given: ModelRow, output: torch.Tensor, scheduler: Scheduler) -> torch.Tensor:
    """The noiseless latents that this output points at (Song et al. 2020, equation 12; Lipman et al. 2022)."""
    if samplers.is_flow_matching(scheduler):
        return given.sample - float(given.timestep) / float(scheduler.config.num_train_timesteps) * output
    alphas = getattr(scheduler, "alphas_cumprod", None)
    if alphas is None:
        return given.sample
    alpha = float(alphas[int(given.timestep.round().clamp(0, len(alphas) - 1))])
    kept, noise = alpha**0.5, (1 - alpha) ** 0.5
    kinds: dict[str, torch.Tensor] = {
        "epsilon": (given.sample - noise * output) / kept,
        "v_prediction": kept * given.sample - noise * output,
        "sample": output,
    }
    return kinds[scheduler.config.get("prediction_type", "epsilon")]
