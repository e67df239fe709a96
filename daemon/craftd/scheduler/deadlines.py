"""When waiting jobs expire, and leased ones that nobody watches are given up. The caller brings the clocks."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping

from craftd.jobs.events import Hub
from craftd.jobs.job import Error, State
from craftd.scheduler.active_job import ActiveJob

_Times = list[tuple[float, str]]  # a heap of (when, job)


class Deadlines:
    """`now` is monotonic, `wall` is what expire_time counts in.

    Times are noted as they arise, and those that no longer hold are dropped when they come up:
    nothing here takes longer for a longer queue.
    """

    def __init__(
        self, hub: Hub, lease_s: float, active: Mapping[str, ActiveJob], is_waiting: Callable[[str], bool]
    ) -> None:
        self._hub = hub
        self._lease_s = lease_s
        self._active = active
        self._is_waiting = is_waiting
        self._expiries: _Times = []
        self._leases: _Times = []

    def note(self, active: ActiveJob) -> None:
        """It came, returned to the queue, or gained or lost a watcher."""
        job = active.job
        if job.expire_time is not None:
            heapq.heappush(self._expiries, (job.expire_time, job.id))
        if job.lease and not self._hub.is_watched(job.id):
            heapq.heappush(self._leases, (active.last_watched + self._lease_s, job.id))

    def next(self, now: float, wall: float) -> float | None:
        """When the first of them passes (monotonic)."""
        self._drop_past()
        times = [now + self._expiries[0][0] - wall] if self._expiries else []
        times += [self._leases[0][0]] if self._leases else []
        return min(times, default=None)

    def overdue(self, now: float, wall: float) -> list[tuple[ActiveJob, State, Error]]:
        """Those whose time has passed, each once, with their ends."""
        late = Error("EXPIRED", "its turn came after its expire_time", "send it again")
        alone = Error(
            "CANCELLED", f"nobody watched it for {self._lease_s:g} s", "`--detach` makes jobs that need no watcher"
        )
        expired = {job_id for job_id in _due(self._expiries, wall) if self._is_waiting(job_id)}
        left = {job_id for job_id in _due(self._leases, now) if self._holds(now, job_id)} - expired
        ends = [(self._active[job_id], State.FAILED, late) for job_id in expired]
        return ends + [(self._active[job_id], State.CANCELLED, alone) for job_id in left]

    def _drop_past(self) -> None:
        """Those at the top that do not hold any more: of jobs that have ended, run, or are watched."""
        while self._expiries and not self._is_waiting(self._expiries[0][1]):  # one that returns is noted again
            heapq.heappop(self._expiries)
        while self._leases and not self._holds(*self._leases[0]):
            heapq.heappop(self._leases)

    def _holds(self, at: float, job_id: str) -> bool:
        active = self._active.get(job_id)
        return active is not None and not self._hub.is_watched(job_id) and at >= active.last_watched + self._lease_s


def _due(times: _Times, now: float) -> list[str]:
    """Taken out."""
    due = []
    while times and times[0][0] <= now:
        due.append(heapq.heappop(times)[1])
    return due
