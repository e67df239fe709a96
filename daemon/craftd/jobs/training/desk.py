"""Train jobs on their way: whose turn it is, what the worker says of them, and what is kept of that.

The dispatcher owns the jobs and hands over its worker's frames; here they become rows and
files. A checkpoint is on disk before its row, and losses are written with the checkpoint
that they lead to, so that a training goes on exactly from what is stored.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from typing import Any

from craft_protos.formats import FORMATS
from craft_protos.reasons import CraftError
from craft_protos.worker_pb2 import FromWorker

from craftd.datasets.dataset import Dataset
from craftd.datasets.service import DatasetService
from craftd.jobs import events
from craftd.jobs.entry import Entry
from craftd.jobs.events import Hub
from craftd.jobs.job import Job
from craftd.jobs.queue import FairQueue
from craftd.jobs.training import table, wire
from craftd.jobs.training.course import Checkpoint, Course, Record, Sample, Step
from craftd.jobs.training.files import SHOWN, TrainingFiles
from craftd.loras.service import LoraService
from craftd.store.database import Database
from craftd.store.disk import unwritable
from craftd.supervisor.supervisor import Supervisor

_log = logging.getLogger("craft.training")
_EXTENSIONS = {one.media_type: one.extension for one in FORMATS.values()}

Work = Coroutine[Any, Any, None]


@dataclass(frozen=True)
class Tools:
    """What the desk works with."""

    database: Database
    supervisor: Supervisor
    hub: Hub
    loras: LoraService
    datasets: DatasetService
    files: TrainingFiles


class Desk:
    """`queue`: those that wait. One at a time is in the worker."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self.queue = FairQueue()
        self._courses: dict[str, Course] = {}
        self._writing = asyncio.Lock()  # files and rows follow in the order of the frames

    def open(self, job_id: str) -> None:
        """A train job has come."""
        self._courses[job_id] = Course()

    def course(self, job_id: str) -> Course:
        """An empty one for a job that has ended."""
        return self._courses.get(job_id) or Course()

    async def order(self, job: Job) -> tuple[Record, Dataset]:
        """What a dispatch needs; what is stored of after the checkpoint is forgotten. Raises UNKNOWN_DATASET.

        Only while nothing of the job is being stored: it waits for no lock, as drawing waits for it.
        """
        job_id = job.id
        gone = await self._tools.database.run(lambda connection: table.rewind(connection, job_id))
        await asyncio.to_thread(self._tools.files.remove_samples, job_id, gone)
        record = await self._tools.database.run(lambda connection: table.record(connection, job_id))
        self.course(job_id).record = record
        return record, await self._tools.datasets.get(job.training.dataset, "", job.owner)

    def provide(self, record: Record, dataset: Dataset) -> None:
        """Give the worker the pictures and the checkpoint. Raises DISK_FULL, STORAGE_FAILED."""
        put, datasets, checkpoint = self._tools.supervisor.put_file, self._tools.datasets, record.checkpoint
        try:
            for picture in dataset.pictures:
                put(picture.sha256, datasets.path(picture))
            if checkpoint.step:
                put(checkpoint.sha256, self._tools.files.path(checkpoint.sha256))
        except OSError as exc:
            raise unwritable(SHOWN, "the worker's link to a picture", exc) from exc

    def see(self, entry: Entry, frame: FromWorker) -> Work | None:
        """What the worker says of a training; the work that this makes, if any. Raises DISK_FULL, STORAGE_FAILED."""
        match frame.WhichOneof("frame"):
            case "preparing":
                part = frame.preparing
                entry.start()
                self._tools.hub.publish(entry.job.id, events.Preparing(part.what, part.done, part.of))
            case "training":
                step = wire.step(frame.training.step)
                entry.start()
                self.course(entry.job.id).add(step)
                self._tools.hub.publish(entry.job.id, events.Trained(step))
            case "sample":
                return self._keep_sample(entry, frame.sample)
            case "checkpoint":
                checkpoint = wire.checkpoint(frame.checkpoint)
                self._take(checkpoint.sha256)
                return self._keep_checkpoint(entry, checkpoint, self.course(entry.job.id).take_steps(checkpoint.step))
            case "lora":
                self._take(frame.lora.sha256)
                return self._keep_lora(entry, frame.lora, self.course(entry.job.id).take_steps())
        return None

    def drop(self, frame: FromWorker) -> None:
        """A late frame: nobody wants its file."""
        made = frame.checkpoint.sha256 or frame.lora.sha256
        if made:
            try:
                self._take(made)
                self._tools.files.incoming(made).unlink(missing_ok=True)
            except (OSError, CraftError) as exc:
                _log.warning("a file of an ended training is left behind", extra={"file": made, "why": str(exc)})

    async def register(self, entry: Entry, sha256: str, preview: bytes = b"") -> None:
        """A finished LoRA's kept file becomes a LoRA. The same file again is the same LoRA."""
        job_id, spec = entry.job.id, entry.job.training
        if entry.job.state.is_final:  # cancelled meanwhile
            return
        lora = await self._tools.loras.adopt(self._tools.files.path(sha256), spec.name, spec.trigger, preview)
        await self._tools.database.run(lambda connection: table.set_lora(connection, job_id, lora.id))
        entry.job = replace(entry.job, lora=lora.id)

    def rewind(self, job_id: str) -> None:
        """Its worker is gone."""
        self.course(job_id).rewind()

    def close(self, job_id: str) -> None:
        """The job has ended: what it had learned of its losses is stored, and what it doesn't need is swept later."""
        course = self._courses.pop(job_id, None)
        if course is not None and (left := course.take_steps()):
            saved = self._tools.database.submit(lambda connection: table.add_steps(connection, job_id, left))
            saved.add_done_callback(_log_failure)

    async def sweep(self, ended_before: float, *, at_start: bool = False) -> None:
        """Forget the checkpoints of trainings that succeeded, and of others that ended before then."""
        async with self._writing:
            await self._tools.database.run(lambda connection: table.drop_checkpoints(connection, ended_before))
            needed = await self._tools.database.run(table.needed_files)
            await asyncio.to_thread(self._tools.files.sweep, needed, at_start=at_start)

    async def sweep_samples(self, ended_before: float) -> None:
        """The files go first: without rows they would be kept for ever."""
        files, database = self._tools.files, self._tools.database
        there = await asyncio.to_thread(files.sample_folders)
        old = await database.run(lambda connection: table.ended(connection, there, ended_before))
        gone = await asyncio.to_thread(lambda: [one for one in old if files.remove_all_samples(one)])
        await database.run(lambda connection: table.forget_samples(connection, gone))

    async def _keep_sample(self, entry: Entry, frame: FromWorker.Sample) -> None:
        told, job_id = frame.sample, entry.job.id
        async with self._writing:
            there = await self._tools.database.run(lambda connection: table.samples(connection, job_id))
            place = sum(one.step == told.step for one in there)
            extension = _EXTENSIONS.get(told.media_type, "png")
            file = f"sample-{told.step}-{place}.{extension}"
            sample = Sample(told.step, place, told.prompt, told.seed, told.media_type, file)
            await asyncio.to_thread(self._tools.files.save_sample, job_id, file, told.data)
            await self._tools.database.run(lambda connection: table.add_sample(connection, job_id, sample))
        self._tools.hub.publish(job_id, events.SampleMade(sample, told.data))

    async def _keep_checkpoint(self, entry: Entry, checkpoint: Checkpoint, passed: list[Step]) -> None:
        job_id, course = entry.job.id, self.course(entry.job.id)
        async with self._writing:
            await asyncio.to_thread(self._tools.files.keep, checkpoint.sha256, checkpoint.size_bytes)
            await self._tools.database.run(lambda connection: table.reach(connection, job_id, checkpoint, passed))
            course.record = replace(course.record, checkpoint=checkpoint)
            needed = await self._tools.database.run(table.needed_files)
            await asyncio.to_thread(self._tools.files.sweep, needed)
        entry.progressed()
        _log.info("checkpoint kept", extra={"job": job_id, "step": checkpoint.step})

    async def _keep_lora(self, entry: Entry, frame: FromWorker.LoraMade, passed: list[Step]) -> None:
        job_id = entry.job.id
        async with self._writing:
            await asyncio.to_thread(self._tools.files.keep, frame.sha256, frame.size_bytes)
            await self._tools.database.run(lambda connection: table.set_made(connection, job_id, frame.sha256, passed))
        await self.register(entry, frame.sha256, frame.preview)  # takes its time: others write meanwhile

    def _take(self, sha256: str) -> None:
        """Out of the worker's store, at once: it may be gone in a moment."""
        destination = self._tools.files.incoming(sha256)
        try:
            self._tools.supervisor.take_file(sha256, destination)
        except OSError as exc:
            raise unwritable(SHOWN, "a checkpoint", exc) from exc


def _log_failure(future: asyncio.Future[None]) -> None:
    if not future.cancelled() and (exc := future.exception()) is not None:
        _log.error("losses not saved", extra={"why": str(exc)})
