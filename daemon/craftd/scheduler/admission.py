"""Which job may begin, and in which worker. Pure policy over what waits and what the workers have."""

from __future__ import annotations

import math
import time
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

_LATE = 3.0  # times as long as starts take: whoever has not said hello by then is not waited for
ALONE_S = 60.0  # at most, of a training that a worker died of, perhaps: others wait so long


@dataclass(frozen=True)
class Placement:
    """The worker that a job goes to, ready or not, and why it is that one."""

    worker: WorkerHandle
    why: str


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

    def worker_for(self, active: ActiveJob, size_bytes: int = 0) -> Placement | None:
        """Where the job is done soonest, of the workers with room for it and of those that have not started.

        None while there is none. `size_bytes`: of its model.
        """
        able = [worker for worker in self.pool.workers if self.may_take(active, worker) or _may_start(worker)]
        if not able:
            return None
        if len(self.pool.workers) == 1:
            return Placement(able[0], "")
        speeds, model = self.pool.speeds, active.job.spec.model
        times = placement.Times(speeds.load_s(model), speeds.image_s(model))
        places = [_place(worker, active, speeds.start_s, size_bytes) for worker in able]
        chosen = placement.choose(places, times)
        return Placement(able[chosen.index], chosen.why)

    def may_take(self, active: ActiveJob, worker: WorkerHandle) -> bool:
        """It has room for the job, and is not being emptied for another."""
        job = active.job
        has_room = worker.has_room(is_suspect=job.is_suspect, is_training=job.is_training)
        return has_room and worker is not self._reserved_for(active)

    def deadline(self, now: float) -> float | None:
        """When a start that jobs wait for is late, and they go elsewhere (monotonic)."""
        late_s = _LATE * self.pool.speeds.start_s
        times = (worker.wanted_at + late_s for worker in self.pool.workers if worker.wanted_at is not None)
        return min((at for at in times if at > now), default=None)

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
        ready = [worker for worker in self.pool.workers if worker.is_ready and worker.may_be_given]
        return min(ready, key=lambda one: one.dispatches.rows, default=None)

    def _holds_back(self, active: ActiveJob) -> bool:
        """A training does, until what it had made is stored, and where it wants the device for itself."""
        return active.job.is_training and (active.storing > 0 or self._is_patient(active))

    def _is_patient(self, active: ActiveJob) -> bool:
        """It wants the device only while nobody else does."""
        return active.job.training.when_idle and (self.pool.are_drawing or self.queue.count(Kind.GENERATE) > 0)


def _may_start(worker: WorkerHandle) -> bool:
    """It has no process, or none that has said hello, and nothing says that it will not have one."""
    return not worker.is_ready and worker.may_be_given and not worker.failures


def _place(worker: WorkerHandle, active: ActiveJob, start_s: float, size_bytes: int) -> placement.Place:
    model, spec = active.job.spec.model, active.job.spec
    has_model = worker.residency.is_loaded(model) or worker.dispatches.draw_with(model)
    return placement.Place(
        starts_in_s=0.0 if worker.is_ready else _starts_in_s(worker, start_s),
        has_model=has_model,
        lacking_loras=worker.loras.lacking(one.sha256 for one in spec.loras) if isinstance(spec, GenerateSpec) else 0,
        rows=worker.dispatches.rows,
        is_training=worker.dispatches.are_training,
        evicts=not has_model and worker.residency.would_evict(size_bytes),
        last_used=worker.residency.last_used,
    )


def _starts_in_s(worker: WorkerHandle, start_s: float) -> float:
    """Much more than it usually takes is a start that will not come."""
    waited_s = 0.0 if worker.wanted_at is None else time.monotonic() - worker.wanted_at
    return math.inf if waited_s > _LATE * start_s else max(0.0, start_s - waited_s)
