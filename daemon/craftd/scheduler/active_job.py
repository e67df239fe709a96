"""An unfinished job in the daemon's memory, and what the scheduler asks of each kind of job."""

from __future__ import annotations

import asyncio
import enum
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from craft_protos.dispatch import Dispatch, ModelManifest
from craft_protos.worker_pb2 import FromWorker

from craftd.images.image import Image
from craftd.jobs.events import Queued
from craftd.jobs.job import Error, Job, JobView, State
from craftd.workers.dispatches import ActiveDispatch
from craftd.workers.handle import WorkerHandle


class Stage(enum.Enum):
    """Where an unfinished job is."""

    WAITING = "in the queue"
    DISPATCHED = "in a worker"
    RETURNED = "back from its worker: what it made is being stored"
    ENDING = "its end is being stored"


@dataclass
class ActiveJob:
    """Owned by ActiveJobs; one method per transition."""

    job: Job
    order: int
    images: dict[int, Image] = field(default_factory=dict)
    removed: frozenset[int] = frozenset()  # images that were drawn, and deleted before the job ended
    received: set[int] = field(default_factory=set)  # images that came, stored or about to be
    epoch: int = 0
    parts: dict[int, WorkerHandle] = field(default_factory=dict)  # which workers it was given to, by epoch
    holders: tuple[WorkerHandle, ...] = ()  # whose models it holds in memory
    placed: str = ""  # why it was given to them
    storing: int = 0
    ending: asyncio.Task[Job] | None = None  # its end is being stored
    tell_at: float = 0.0  # not before, its watchers hear of its place again (monotonic)
    reloads: int = 0  # dispatches that found files of its model gone which were there a moment before
    last_watched: float = field(default_factory=time.monotonic)
    last_queued: Queued | None = None  # what its watchers heard last of its place

    @property
    def stage(self) -> Stage:
        if self.ending is not None:
            return Stage.ENDING
        if self.job.state is State.QUEUED:
            return Stage.WAITING
        return Stage.RETURNED if self.dispatch is None else Stage.DISPATCHED

    @property
    def dispatches(self) -> tuple[tuple[WorkerHandle, ActiveDispatch], ...]:
        """Those that workers have now: a job of several images may be with several."""
        found = ((worker, worker.dispatches.find(self.job.id, epoch)) for epoch, worker in self.parts.items())
        return tuple((worker, dispatch) for worker, dispatch in found if dispatch is not None)

    @property
    def dispatch(self) -> ActiveDispatch | None:
        """The first of them, which is the only one of a training."""
        return next((dispatch for _, dispatch in self.dispatches), None)

    def part(self, epoch: int) -> ActiveDispatch | None:
        """One of them, while its worker has it."""
        return next((dispatch for _, dispatch in self.dispatches if dispatch.epoch == epoch), None)

    @property
    def workers(self) -> tuple[WorkerHandle, ...]:
        """Those that it was given to last; each once."""
        return tuple(dict.fromkeys(self.parts.values()))

    @property
    def remaining(self) -> tuple[int, ...]:
        return tuple(index for index in self.job.spec.wanted if index not in self.received)

    @property
    def view(self) -> JobView:
        return JobView(self.job, tuple(self.images[index] for index in sorted(self.images)))

    def take_up(self) -> None:
        """It leaves the queue: for workers, or for what is left to be stored."""
        self.parts = {}
        self.job = replace(self.job, state=State.RUNNING, start_time=None)

    def give(
        self, worker: WorkerHandle, indices: Iterable[int], *, preview_every: int, alone_until: float
    ) -> ActiveDispatch:
        """A part of it, or all, goes to a worker."""
        self.epoch += 1
        self.parts[self.epoch] = worker
        return ActiveDispatch(
            job_id=self.job.id,
            epoch=self.epoch,
            is_suspect=self.job.is_suspect,
            indices=set(indices),
            is_training=self.job.is_training,
            model=self.job.spec.model,
            preview_every=preview_every,
            alone_until=alone_until,
        )

    def start(self) -> None:
        if self.job.start_time is None:
            self.job = replace(self.job, start_time=time.time())

    def account(self, load_s: float, denoise_s: float) -> None:
        """Images of a job are drawn together: the longest says how long it took."""
        job = self.job
        self.job = replace(job, load_s=max(job.load_s, load_s), denoise_s=max(job.denoise_s, denoise_s))

    def withdraw(self) -> bool:
        """Take it back from its workers; whether one had it. What they still send of it is late."""
        taken = self.dispatches
        for worker, dispatch in taken:
            worker.cancel(self.job.id, dispatch.epoch)
            worker.dispatches.remove(self.job.id, dispatch.epoch)
        self.parts = {}
        return bool(taken)

    def requeue(self, *, is_suspect: bool, attempts: int) -> None:
        self.job = replace(self.job, state=State.QUEUED, start_time=None, is_suspect=is_suspect, attempts=attempts)

    def progressed(self) -> None:
        """A training that gets on is no suspect: its checkpoint is further than where a worker died."""
        self.job = replace(self.job, is_suspect=False, attempts=0)

    def succeeded(self) -> Job:
        return replace(self.job, state=State.SUCCEEDED, finish_time=time.time())

    def ended(self, state: State, error: Error | None) -> Job:
        return replace(self.job, state=state, finish_time=time.time(), error=error)


@dataclass(frozen=True)
class Assignment:
    """What a worker needs for a job beside its model."""

    files: Mapping[str, Path]  # by sha256
    dispatch: Callable[[ActiveDispatch, ModelManifest], Dispatch]  # what the worker is sent


Storing = Coroutine[Any, Any, Job | None]  # gives the job as stored, where that was its end


class Work(Protocol):
    """How one kind of job is done: what a worker is given, and what becomes of what it sends."""

    def open(self, active: ActiveJob) -> None:
        """A job has come, new or from before the daemon's start."""
        ...

    async def find_rest(self, active: ActiveJob) -> Callable[[], Storing] | None:
        """What is left to be stored, where workers have done their part already."""
        ...

    async def prepare(self, active: ActiveJob) -> Assignment:
        """Its next dispatch. Raises what keeps the job from being done."""
        ...

    def receive(self, active: ActiveJob, frame: FromWorker) -> Storing | None:
        """What its worker says of it; what there is to store of that."""
        ...

    def is_complete(self, active: ActiveJob) -> bool:
        """Nothing is still to come from a worker."""
        ...

    def rewind(self, active: ActiveJob) -> None:
        """Its worker is gone, or it was taken from it."""
        ...

    def close(self, active: ActiveJob) -> None:
        """It has ended."""
        ...
