"""Which job may begin, and in which worker. Pure policy over what waits and what the workers have."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

from craft_protos.generate import GenerateSpec

from craftd.jobs.job import Kind
from craftd.scheduler import placement
from craftd.scheduler.active_job import ActiveJob
from craftd.scheduler.active_jobs import ActiveJobs
from craftd.scheduler.queue import JobQueue, Waiting
from craftd.workers.handle import WorkerHandle
from craftd.workers.pool import WorkerPool

_WORTH_WAITING = 0.25  # of the time that a job takes: if another worker starts within it, it goes to both
ALONE_S = 60.0  # at most, of a training that a worker died of, perhaps: others wait so long


@dataclass(frozen=True)
class Placement:
    """Where a job goes, and why. Where it does not go yet, it waits for the start of one of the workers."""

    why: str
    may_go: bool
    workers: tuple[WorkerHandle, ...]  # the best first, then others that would draw a part of it once they had started


@dataclass(frozen=True)
class Admission:
    """`is_open`: whether nothing but its turn keeps a job waiting."""

    queue: JobQueue
    jobs: ActiveJobs
    pool: WorkerPool
    is_open: Callable[[Waiting], bool]

    def next(self, kind: Kind) -> Waiting | None:
        """Whose turn it is; None too while that one holds back, as nobody overtakes it."""
        waiting = self.queue.head(kind, self.is_open)
        active = None if waiting is None else self.jobs.get(waiting.job_id)
        return None if active is None or self._holds_back(active) else waiting

    def place(self, active: ActiveJob, size_bytes: int = 0) -> Placement | None:
        """Where the job is done soonest, of the workers with room for it and of those that have not started.

        None while there is none. `size_bytes`: of its model.
        """
        able = [worker for worker in self.pool.workers if self.may_take(active, worker) or self._may_start(worker)]
        if not able:
            return None
        if len(self.pool.workers) == 1:
            return Placement("", able[0].is_ready, (able[0],))
        places, times = (
            [self._seen(worker, active, size_bytes) for worker in able],
            self._times(active),
        )
        chosen = placement.choose(places, times)
        counts = placement.spread(places, times, _shared(active))
        starting = [
            (one, place) for one, place, count in zip(able, places, counts, strict=True) if count and not one.is_ready
        ]
        soon_s = times.image_s * len(active.remaining) * _WORTH_WAITING
        is_soon = any(one.is_starting and place.starts_in_s <= soon_s for one, place in starting)
        first = able[chosen.index]
        return Placement(chosen.why, first.is_ready and not is_soon, (first, *(one for one, _ in starting)))

    def shares(
        self, active: ActiveJob, first: WorkerHandle, size_bytes: int = 0
    ) -> dict[WorkerHandle, tuple[int, ...]]:
        """What of it each worker that is ready draws: images of one job go to several where that is sooner."""
        images = active.remaining
        if not _shared(active) or len(self.pool.workers) == 1:
            return {first: images}
        able = [one for one in self.pool.workers if self.may_take(active, one)]
        if not able:  # they have died since it was placed
            return {first: images}
        places = [self._seen(worker, active, size_bytes) for worker in able]
        counts = placement.spread(places, self._times(active), len(images))
        ends = itertools.accumulate(counts)
        return {
            worker: images[end - count : end] for worker, count, end in zip(able, counts, ends, strict=True) if count
        }

    def _may_start(self, worker: WorkerHandle) -> bool:
        """It has no process, or none that has said hello, and nothing says that it will not have one."""
        can = not worker.is_ready and worker.may_be_given and not worker.trouble
        return can and math.isfinite(self.pool.starts_in_s(worker))

    def _seen(self, worker: WorkerHandle, active: ActiveJob, size_bytes: int) -> placement.Place:
        """The worker, as the job sees it."""
        model, spec = active.job.spec.model, active.job.spec
        has_model = worker.residency.is_loaded(model) or worker.dispatches.draw_with(model)
        hashes = (one.sha256 for one in spec.loras) if isinstance(spec, GenerateSpec) else ()
        return placement.Place(
            starts_in_s=self.pool.starts_in_s(worker),
            has_model=has_model,
            lacking_loras=worker.loras.lacking(hashes),
            rows=worker.dispatches.rows,
            is_training=worker.dispatches.are_training,
            evicts=not has_model and worker.residency.would_evict(size_bytes),
            last_used=worker.residency.last_used,
        )

    def _times(self, active: ActiveJob) -> placement.Times:
        model = active.job.spec.model
        return placement.Times(*self.pool.times_of(model))

    def may_take(self, active: ActiveJob, worker: WorkerHandle) -> bool:
        """It has room for the job, and is not being emptied for another."""
        job = active.job
        has_room = worker.has_room(is_suspect=job.is_suspect, is_training=job.is_training)
        return has_room and worker is not self._reserved_for(active)

    def deadline(self, now: float) -> float | None:
        """When a start that jobs wait for is late, and they go elsewhere (monotonic)."""
        times = (self.pool.late_at(worker) for worker in self.pool.workers if worker.wanted_at is not None)
        return min((at for at in times if at > now), default=None)

    def why_waiting(self, active: ActiveJob) -> str:
        """What a training waits for besides those ahead; "" for others."""
        if not active.job.is_training:
            return ""
        given = [worker for worker in self.pool.workers if worker.may_be_given]
        if given and all(worker.dispatches.are_training for worker in given):
            return "another training runs"
        return "waiting until nothing is drawn" if self._is_patient(active) else ""

    def _reserved_for(self, active: ActiveJob) -> WorkerHandle | None:
        """The worker that is to be emptied for another job, which a worker died of, perhaps, and which goes alone."""
        suspects = [one for one in map(self.next, Kind) if one is not None and one.is_suspect]
        if (
            not suspects
            or suspects[0].job_id == active.job.id
            or (active.job.is_suspect and not active.job.is_training)
        ):
            return None
        ready = [worker for worker in self.pool.workers if worker.is_ready and worker.may_be_given]
        return min(ready, key=lambda one: one.dispatches.rows, default=None)

    def _holds_back(self, active: ActiveJob) -> bool:
        """A training does, until what it had made is stored, and where it wants the device for itself."""
        return active.job.is_training and (active.storing > 0 or self._is_patient(active))

    def _is_patient(self, active: ActiveJob) -> bool:
        """It wants the device only while nobody else does."""
        return active.job.training.when_idle and (self.pool.are_drawing or self.queue.count(Kind.GENERATE) > 0)


def _shared(active: ActiveJob) -> int:
    """How many images of it may go to whichever worker; 0 where they stay together."""
    count = len(active.remaining)
    return 0 if active.job.is_training or active.job.is_suspect or count == 1 else count
