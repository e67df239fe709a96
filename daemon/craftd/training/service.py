"""Trainings: what is asked for becomes a job's spec; what is known of one is told; what nobody needs goes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from craft_protos.reasons import CraftError, invalid
from craft_protos.settings import LimitSettings
from craft_protos.train import TrainRequest, TrainSpec

from craftd.datasets.service import DatasetService
from craftd.jobs import store as jobs
from craftd.jobs.generate_defaults import GenerateDefaults
from craftd.jobs.job import Job, JobView, State
from craftd.keys.caller import Caller
from craftd.loras.service import LoraService
from craftd.models.model import Model
from craftd.models.service import ModelService
from craftd.offload import Need
from craftd.store.database import Database
from craftd.training import resolve, store
from craftd.training.files import TrainingFiles
from craftd.training.lifecycle import TrainingLifecycle
from craftd.training.progress import Log, Step

_DAY_S = 86_400.0
_KEPT_UNUSED_S = _DAY_S  # a dataset that no job asked for
_KEPT_ENDED_S = 7 * _DAY_S  # what a training that failed or was cancelled needs to go on
_SWEEP_EVERY_S = 3600.0


@dataclass(frozen=True)
class Resolved:
    spec: TrainSpec
    model: Model
    notes: tuple[str, ...]


@dataclass(frozen=True)
class TrainingService:
    database: Database
    models: ModelService
    loras: LoraService
    datasets: DatasetService
    files: TrainingFiles
    lifecycle: TrainingLifecycle
    limits: LimitSettings
    generating: GenerateDefaults
    keep_samples_s: float  # after the end; 0: for ever

    async def resolve(self, caller: Caller, asked: TrainRequest) -> Resolved:
        """Raises INVALID_FIELD, NAME_TAKEN, UNKNOWN_MODEL, UNTRAINABLE_MODEL, UNKNOWN_DATASET, UNKNOWN_JOB."""
        resolve.check(asked, self.limits)
        if asked.resume:
            return await self._resumed(caller, asked)
        self.loras.check_free(asked.name, caller.owner)
        self.loras.check_room(caller)
        model = await self.models.usable(asked.model or self.generating.model)
        resolve.defaults_for(model)
        if not asked.dataset:
            raise invalid("dataset", "is missing", "send the pictures first: UploadDataset")
        dataset = await self.datasets.get(asked.dataset, caller.scope, caller.owner)
        base = self.loras.find(asked.base_lora, caller) if asked.base_lora else None
        spec = resolve.resolve(asked, model, dataset, self.limits, base)
        return await self._checked(Resolved(spec, model, resolve.notes(spec, model, dataset)), caller)

    async def check_room(self, model: Model, need_of: Callable[[Model], Need | None]) -> None:
        """`need_of`: what a model will hold of the device. Raises OUT_OF_MEMORY, with models that would fit."""
        if resolve.stays(need := need_of(model)):
            return
        trainable = [one.model for one in await self.models.list() if one.model.architecture.training is not None]
        raise resolve.too_big(model, need, [one.name for one in trainable if resolve.stays(need_of(one))])

    async def made_bytes(self, spec: TrainSpec) -> int:
        """How large the LoRA's file will be; 0: not known."""
        return await self.database.look(lambda connection: store.made_bytes(connection, spec))

    async def log(self, view: JobView) -> Log:
        """Losses, samples and the checkpoint of a job, as far as it is."""
        job_id = view.job.id
        record = await self.database.run(lambda connection: store.record(connection, job_id))
        steps = await self.database.run(lambda connection: store.steps(connection, job_id))
        samples = await self.database.run(lambda connection: store.samples(connection, job_id))
        known = {one.step: one for one in steps} | self.lifecycle.progress_of(job_id).unsaved
        ordered = tuple(known[number] for number in sorted(known))
        shown = tuple((one, self.files.sample(job_id, one.file)) for one in samples)
        return Log(record, ordered, shown)

    def last_step(self, job_id: str) -> Step | None:
        """The newest of a training that runs."""
        return self.lifecycle.progress_of(job_id).last

    async def sample(self, path: Path) -> bytes:
        """A sample's file; b"" where it is gone."""
        try:
            return await asyncio.to_thread(path.read_bytes)
        except OSError:
            return b""

    async def open(self) -> None:
        """At the start: remove what a crash cut short, and what is no longer needed."""
        await self.sweep(at_start=True)

    async def run(self) -> None:
        """Sweep for ever."""
        while True:
            await asyncio.sleep(_SWEEP_EVERY_S)
            await self.sweep()

    async def sweep(self, *, at_start: bool = False) -> None:
        """Remove the files that no job and no dataset needs any more."""
        since = time.time() - _KEPT_ENDED_S
        await self.lifecycle.sweep(since, at_start=at_start)
        if self.keep_samples_s:
            await self.lifecycle.sweep_samples(time.time() - self.keep_samples_s)
        needed = await self.database.run(lambda connection: store.needed_datasets(connection, since))
        await self.datasets.sweep(needed, _KEPT_UNUSED_S, at_start=at_start)

    async def prune(self, *, is_data: bool, older_than_s: float) -> None:
        """Datasets, or checkpoints, of that age; what unfinished trainings need stays."""
        before = time.time() - older_than_s
        if is_data:
            needed = await self.database.run(lambda connection: store.needed_datasets(connection, before))
            await self.datasets.sweep(needed, older_than_s)
        else:
            await self.lifecycle.sweep(before)

    async def prunable(self, *, is_data: bool, older_than_s: float) -> tuple[int, int]:
        """(files, bytes) that `prune` would remove, by the rows."""
        before = time.time() - older_than_s
        if not is_data:
            return await self.database.look(lambda connection: store.droppable(connection, before))
        needed = await self.database.look(lambda connection: store.needed_datasets(connection, before))
        return await self.datasets.forgettable(needed, before)

    async def _checked(self, found: Resolved, caller: Caller) -> Resolved:
        """Once more where the job is stored: two may ask at the same time."""
        await self.database.run(lambda connection: store.check_name(connection, found.spec.name, caller.owner))
        return found

    async def _resumed(self, caller: Caller, asked: TrainRequest) -> Resolved:
        """As the earlier job was, from its checkpoint."""
        view = await self._earlier(caller, asked.resume)
        job = view.job
        if not job.is_training:
            raise invalid("resume", f"job {job.id} is no training", "see `craft jobs list`")
        if not job.state.is_final:
            raise CraftError(
                "IN_USE", f"resume: job {job.id} is not finished, it goes on by itself", f"craft jobs watch {job.id}"
            )
        if job.state is State.SUCCEEDED:
            raise self._finished(job, caller)
        self.loras.check_free(job.training.name, job.owner)
        self.loras.check_room(caller)
        model = await self.models.usable(job.training.model)
        dataset = await self.datasets.get(job.training.dataset, "", job.owner)
        record = await self.database.run(lambda connection: store.record(connection, job.id))
        spec = replace(job.training, resume=job.id, when_idle=asked.when_idle or job.training.when_idle)
        begin = f"goes on from step {record.checkpoint.step} of job {job.id}"
        if not record.checkpoint.step:
            begin = f"job {job.id} has no checkpoint: begins anew"
        return await self._checked(Resolved(spec, model, (begin, *resolve.notes(spec, model, dataset))), caller)

    def _finished(self, job: Job, caller: Caller) -> CraftError:
        message = f"resume: job {job.id} has become LoRA {job.lora}"
        try:
            self.loras.find(job.lora, caller)
        except CraftError:
            return CraftError("JOB_FINISHED", f"{message}, which was removed", "train it anew: without --resume")
        return CraftError("JOB_FINISHED", message, f"craft lora show {job.lora}")

    async def _earlier(self, caller: Caller, text: str) -> JobView:
        """The last training of that name, or a job by its id. Raises UNKNOWN_JOB, AMBIGUOUS_ID."""
        named = await self.database.run(lambda connection: store.last_with_name(connection, text, caller.scope))
        try:
            return await self.database.run(lambda connection: jobs.view(connection, named or text, caller.scope))
        except CraftError as error:
            if error.reason != "UNKNOWN_JOB":
                raise
            message = f"resume: no training has the name or the id {text!r}"
            raise CraftError("UNKNOWN_JOB", message, "see `craft jobs list`") from error
