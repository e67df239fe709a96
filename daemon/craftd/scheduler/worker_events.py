"""What the workers say, and what it means for the jobs that they have."""

from __future__ import annotations

import asyncio
import logging

from craft_protos.reasons import CraftError
from craft_protos.worker_pb2 import FromWorker

from craftd.jobs import events, wire
from craftd.jobs.events import Hub
from craftd.jobs.job import State
from craftd.scheduler.active_job import ActiveJob
from craftd.scheduler.active_jobs import ActiveJobs
from craftd.tasks import Tasks
from craftd.workers.connection import Death
from craftd.workers.handle import WorkerHandle

_log = logging.getLogger("craft.jobs")
_OF_WORK = ("step", "image", "preparing", "training", "sample", "checkpoint", "lora")
_CHANGE_NOTHING = ("step", "loading", "started", "preparing", "training")


class WorkerEvents:
    """Listens to the pool."""

    def __init__(self, jobs: ActiveJobs, hub: Hub, changed: asyncio.Event) -> None:
        self._jobs = jobs
        self._changed = changed
        self._hub = hub
        self._tasks = Tasks()

    def on_ready(self, worker: WorkerHandle, hello: FromWorker.Hello) -> None:
        self._changed.set()

    def on_frame(self, worker: WorkerHandle, frame: FromWorker) -> None:
        kind = frame.WhichOneof("frame")
        match kind:
            case "started":
                self._on_started(worker, frame.started)
            case "loading":
                self._on_loading(worker, frame.loading)
            case "done":
                self._on_done(worker, frame.done)
            case "failed":
                self._on_failed(worker, frame.failed)
            case _ if kind in _OF_WORK:
                self._on_work(worker, frame)
        if kind not in _CHANGE_NOTHING:
            self._changed.set()

    def on_death(self, worker: WorkerHandle, death: Death) -> None:
        for dispatch in death.lost:
            if (active := self._jobs.find(dispatch)) is not None:
                is_cause = self._is_cause(active, death)
                self._jobs.give_back(
                    active, is_suspect=not (death.is_planned or death.is_cut_off), is_cause=is_cause, why=death.why
                )
        self._changed.set()

    def on_start_failed(self, worker: WorkerHandle, why: str) -> None:
        """Jobs wait: it is tried again for as long as one does."""
        self._changed.set()

    def _is_cause(self, active: ActiveJob, death: Death) -> bool:
        """A death counts against the job only where it was alone and the worker's own doing ended it.

        A training need not be alone: the second death without a new checkpoint counts too.
        """
        was_alone = len(death.lost) == 1
        is_again = active.job.is_training and active.job.is_suspect
        return not death.is_planned and death.is_own_doing and (was_alone or is_again)

    def _on_started(self, worker: WorkerHandle, frame: FromWorker.Started) -> None:
        if (active := self._jobs.find(worker.dispatches.find(frame.job_id, frame.epoch))) is not None:
            active.start()
            started = events.Started(active.job.attempts + 1, worker.name, frame.notice)
            self._hub.publish(frame.job_id, started)

    def _on_loading(self, worker: WorkerHandle, frame: FromWorker.Loading) -> None:
        loading = events.Loading(frame.model, frame.bytes_done, frame.bytes_total)
        for active in self._jobs:
            if active.job.state is State.RUNNING and worker in active.workers and frame.model in active.job.spec.models:
                self._hub.publish(active.job.id, loading)

    def _on_work(self, worker: WorkerHandle, frame: FromWorker) -> None:
        told = getattr(frame, frame.WhichOneof("frame") or "")
        dispatch = worker.dispatches.find(told.job_id, told.epoch)
        active = self._jobs.find(dispatch)
        if dispatch is None or active is None:
            self._discard(worker, frame)
            return
        was_suspect = dispatch.is_suspect
        try:
            self._jobs.receive(active, frame)
        except CraftError as exc:
            self._jobs.fail(active, exc)
        if was_suspect and not dispatch.is_suspect:  # others may join it now
            self._changed.set()

    def _discard(self, worker: WorkerHandle, frame: FromWorker) -> None:
        """A late frame: nobody wants its file."""
        if made := frame.checkpoint.sha256 or frame.lora.sha256:
            self._tasks.start(self._delete(worker, made), f"discard {made}")

    async def _delete(self, worker: WorkerHandle, made: str) -> None:
        try:
            await worker.discard(made)
        except OSError as exc:
            _log.warning("a file of an ended training is left behind", extra={"file": made, "why": str(exc)})

    def _on_done(self, worker: WorkerHandle, frame: FromWorker.JobDone) -> None:
        if (active := self._take_out(worker, frame.job_id, frame.epoch)) is not None:
            self._jobs.settle(active)

    def _on_failed(self, worker: WorkerHandle, frame: FromWorker.JobFailed) -> None:
        active = self._take_out(worker, frame.job_id, frame.epoch)
        if active is None:
            return
        error = wire.error(frame.error)
        if error.reason == "CORRUPT_FILE" and self._jobs.may_reload(active):  # it may have been gone for a moment
            self._jobs.suspend(active, f"model {active.job.spec.model}", error.message)
        else:
            self._jobs.end(active, State.FAILED, error)

    def _take_out(self, worker: WorkerHandle, job_id: str, epoch: int) -> ActiveJob | None:
        """The worker is done with it."""
        return self._jobs.find(worker.dispatches.remove(job_id, epoch))
