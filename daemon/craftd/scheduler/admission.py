"""Which job may begin, and in which worker. Pure policy over what waits and what the workers have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from craftd.jobs.job import Kind
from craftd.scheduler.active_job import ActiveJob
from craftd.scheduler.active_jobs import ActiveJobs
from craftd.scheduler.queue import JobQueue, Waiting
from craftd.workers.handle import WorkerHandle
from craftd.workers.pool import WorkerPool

ALONE_S = 60.0  # at most, of a training that a worker died of, perhaps: others wait so long


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

    def worker_for(self, active: ActiveJob) -> WorkerHandle | None:
        """A worker with room for it, one that has its model first; None while there is none."""
        job, reserved = active.job, self._reserved_for(active)
        able = [
            worker
            for worker in self.pool.workers
            if worker is not reserved and worker.has_room(is_suspect=job.is_suspect, is_training=job.is_training)
        ]
        model = job.spec.model
        return min(able, key=lambda one: (not one.residency.is_loaded(model), one.dispatches.rows), default=None)

    def why_waiting(self, active: ActiveJob) -> str:
        """What a training waits for besides those ahead; "" for others."""
        if not active.job.is_training:
            return ""
        if all(worker.dispatches.are_training for worker in self.pool.workers):
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
        ready = [worker for worker in self.pool.workers if worker.is_ready]
        return min(ready, key=lambda one: one.dispatches.rows, default=None)

    def _holds_back(self, active: ActiveJob) -> bool:
        """A training does, until what it had made is stored, and where it wants the device for itself."""
        return active.job.is_training and (active.storing > 0 or self._is_patient(active))

    def _is_patient(self, active: ActiveJob) -> bool:
        """It wants the device only while nobody else does."""
        return active.job.training.when_idle and (self.pool.are_drawing or self.queue.count(Kind.GENERATE) > 0)
