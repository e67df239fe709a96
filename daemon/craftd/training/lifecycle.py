"""How a job that trains is done: its pictures go to a worker, and what comes back becomes rows and files.

A checkpoint is on disk before its row, and losses are written with the checkpoint that they
lead to, so that a training goes on exactly from what is stored.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from craft_protos.dispatch import Dispatch, File, ModelManifest
from craft_protos.formats import FORMATS
from craft_protos.lora import LoraRef
from craft_protos.training_pb2 import TrainingSample
from craft_protos.worker_pb2 import FromWorker

from craftd.datasets.dataset import Dataset
from craftd.datasets.service import DatasetService
from craftd.jobs import events
from craftd.jobs.events import Hub
from craftd.keys.caller import Caller
from craftd.loras.lora import Wish
from craftd.loras.service import LoraService
from craftd.scheduler.active_job import ActiveJob, Assignment, Storing
from craftd.store.database import Database
from craftd.store.disk import unwritable
from craftd.training import store, wire
from craftd.training.files import SHOWN, TrainingFiles
from craftd.training.progress import Checkpoint, Sample, Step, TrainingProgress
from craftd.workers.dispatches import ActiveDispatch

_log = logging.getLogger("craft.training")
_EXTENSIONS = {one.media_type: one.extension for one in FORMATS.values()}


class TrainingLifecycle:
    """The scheduler's Work for TRAIN, and the owner of what trainings leave on disk."""

    def __init__(
        self,
        database: Database,
        hub: Hub,
        loras: LoraService,
        datasets: DatasetService,
        files: TrainingFiles,
        *,
        caller_of: Callable[[str], Caller],
    ) -> None:
        self._database = database
        self._hub = hub
        self._loras = loras
        self._caller_of = caller_of  # an owner, as far as they are known now
        self._datasets = datasets
        self._files = files
        self._progress: dict[str, TrainingProgress] = {}
        self._writing = asyncio.Lock()  # files and rows follow in the order of the frames

    def progress_of(self, job_id: str) -> TrainingProgress:
        """An empty one for a job that has ended."""
        return self._progress.get(job_id) or TrainingProgress()

    def open(self, active: ActiveJob) -> None:
        self._progress[active.job.id] = TrainingProgress()

    async def find_rest(self, active: ActiveJob) -> Callable[[], Storing] | None:
        """A finished LoRA whose registration is missing: for that no worker is needed."""
        job_id, progress = active.job.id, self.progress_of(active.job.id)
        if progress.made_sha256 is None:
            record = await self._database.run(lambda connection: store.record(connection, job_id))
            progress.made_sha256 = record.made_sha256
        return partial(self._register, active, progress.made_sha256) if progress.made_sha256 else None

    async def prepare(self, active: ActiveJob) -> Assignment:
        """From its checkpoint on: what is stored of after that is forgotten. Raises UNKNOWN_DATASET, UNKNOWN_LORA.

        Only while nothing of the job is being stored: it waits for no lock, as drawing waits for it.
        """
        job = active.job
        gone = await self._database.run(lambda connection: store.rewind(connection, job.id))
        await asyncio.to_thread(self._files.remove_samples, job.id, gone)
        record = await self._database.run(lambda connection: store.record(connection, job.id))
        dataset = await self._datasets.get(job.training.dataset, "", job.owner)
        return self._assignment(active, record.checkpoint, dataset)

    def receive(self, active: ActiveJob, frame: FromWorker) -> Storing | None:
        job_id = active.job.id
        match frame.WhichOneof("frame"):
            case "preparing":
                part = frame.preparing
                active.start()
                self._hub.publish(job_id, events.Preparing(part.what, part.done, part.of))
            case "training":
                self._step(active, wire.step(frame.training.step))
            case "sample":
                return self._keep_sample(job_id, frame.sample.sample)
            case "checkpoint":
                checkpoint = wire.checkpoint(frame.checkpoint)
                return self._keep_checkpoint(active, checkpoint, self.progress_of(job_id).take_steps(checkpoint.step))
            case "lora":
                return self._keep_lora(active, frame.lora, self.progress_of(job_id).take_steps())
        return None

    def is_complete(self, active: ActiveJob) -> bool:
        return bool(active.job.lora)

    def rewind(self, active: ActiveJob) -> None:
        self.progress_of(active.job.id).rewind()

    def close(self, active: ActiveJob) -> None:
        """What it had learned of its losses is stored, and what it doesn't need is swept later."""
        job_id = active.job.id
        progress = self._progress.pop(job_id, None)
        if progress is not None and (left := progress.take_steps()):
            saved = self._database.submit(lambda connection: store.add_steps(connection, job_id, left))
            saved.add_done_callback(_log_failure)

    async def sweep(self, ended_before: float, *, at_start: bool = False) -> None:
        """Forget the checkpoints of trainings that succeeded, and of others that ended before then."""
        async with self._writing:
            await self._database.run(lambda connection: store.drop_checkpoints(connection, ended_before))
            needed = await self._database.run(store.needed_files)
            await asyncio.to_thread(self._files.sweep, needed, at_start=at_start)

    async def sweep_samples(self, ended_before: float) -> None:
        """The files go first: without rows they would be kept for ever."""
        files, database = self._files, self._database
        there = await asyncio.to_thread(files.sample_folders)
        old = await database.run(lambda connection: store.ended(connection, there, ended_before))
        gone = await asyncio.to_thread(lambda: [one for one in old if files.remove_all_samples(one)])
        await database.run(lambda connection: store.forget_samples(connection, gone))

    def _assignment(self, active: ActiveJob, checkpoint: Checkpoint, dataset: Dataset) -> Assignment:
        files = {sha256: self._datasets.path(sha256) for one in dataset.pictures for sha256 in one.files}
        if checkpoint.step:
            files[checkpoint.sha256] = self._files.path(checkpoint.sha256)
        spec, base = active.job.training, File("", "", 0)
        if spec.base_lora:
            lora = self._loras.of_job(LoraRef(spec.base_lora, sha256=spec.base_lora_sha256), active.job.owner)
            files[lora.sha256] = lora.place.path
            base = File(lora.name, lora.sha256, lora.size_bytes)

        def dispatch(to: ActiveDispatch, model: ModelManifest) -> Dispatch:
            made = wire.training(active.job, to.epoch, model, dataset.pictures, checkpoint)
            return replace(made, files=(*made.files, base)) if base.name else made

        return Assignment(files, dispatch)

    def _step(self, active: ActiveJob, step: Step) -> None:
        """One that is past where a worker died is no suspect any more."""
        active.start()
        progress, dispatch = self.progress_of(active.job.id), active.dispatch
        progress.add(step)
        if dispatch is not None and progress.is_past_its_death:
            dispatch.is_suspect = False
        self._hub.publish(active.job.id, events.Trained(step))

    async def _keep_sample(self, job_id: str, told: TrainingSample) -> None:
        async with self._writing:
            there = await self._database.run(lambda connection: store.samples(connection, job_id))
            place = sum(one.step == told.step for one in there)
            extension = _EXTENSIONS.get(told.media_type, "png")
            file = f"sample-{told.step}-{place}.{extension}"
            sample = Sample(told.step, place, told.prompt, told.seed, told.media_type, file)
            await asyncio.to_thread(self._files.save_sample, job_id, file, told.data)
            await self._database.run(lambda connection: store.add_sample(connection, job_id, sample))
        self._hub.publish(job_id, events.SampleMade(sample, told.data))

    async def _keep_checkpoint(self, active: ActiveJob, checkpoint: Checkpoint, passed: list[Step]) -> None:
        job_id = active.job.id
        await self._collect(active, checkpoint.sha256)
        async with self._writing:
            await asyncio.to_thread(self._files.keep, checkpoint.sha256, checkpoint.size_bytes)
            await self._database.run(lambda connection: store.reach(connection, job_id, checkpoint, passed))
            needed = await self._database.run(store.needed_files)
            await asyncio.to_thread(self._files.sweep, needed)
        active.progressed()
        _log.info("checkpoint kept", extra={"job": job_id, "step": checkpoint.step})

    async def _keep_lora(self, active: ActiveJob, frame: FromWorker.LoraMade, passed: list[Step]) -> None:
        job_id = active.job.id
        await self._collect(active, frame.sha256)
        async with self._writing:
            await asyncio.to_thread(self._files.keep, frame.sha256, frame.size_bytes)
            await self._database.run(lambda connection: store.set_made(connection, job_id, frame.sha256, passed))
        self.progress_of(job_id).made_sha256 = frame.sha256
        await self._register(active, frame.sha256, frame.preview)  # takes its time: others write meanwhile

    async def _register(self, active: ActiveJob, sha256: str, preview: bytes = b"") -> None:
        """A finished LoRA's kept file becomes a LoRA. The same file again is the same LoRA."""
        job_id, spec = active.job.id, active.job.training
        if active.job.state.is_final:  # cancelled meanwhile
            return
        owner = await self._database.run(lambda connection: store.first_owner(connection, job_id))
        wish = Wish(spec.name, trigger=spec.trigger)
        lora = await self._loras.adopt(self._files.path(sha256), wish, self._caller_of(owner), preview)
        await self._database.run(lambda connection: store.set_lora(connection, job_id, lora.id))
        active.job = replace(active.job, lora=lora.id)

    async def _collect(self, active: ActiveJob, sha256: str) -> None:
        """Out of the worker's store, before all else: it may be gone in a moment. Raises DISK_FULL, STORAGE_FAILED."""
        (worker,) = active.workers
        try:
            await worker.collect(sha256, self._files.incoming(sha256))
        except OSError as exc:
            raise unwritable(SHOWN, "a checkpoint", exc) from exc


def _log_failure(future: asyncio.Future[None]) -> None:
    if not future.cancelled() and (exc := future.exception()) is not None:
        _log.error("losses not saved", extra={"why": str(exc)})
