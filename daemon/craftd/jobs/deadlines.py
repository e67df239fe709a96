"""When waiting jobs expire, and leased ones that nobody watches are given up. The caller brings the clocks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from craftd.jobs.entry import Entry
from craftd.jobs.events import Hub
from craftd.jobs.job import Error, State


@dataclass(frozen=True)
class Deadlines:
    """`now` is monotonic, `wall` is what expire_time counts in."""

    hub: Hub
    lease_s: float

    def next(self, entries: Iterable[Entry], waiting: Iterable[Entry], now: float, wall: float) -> float | None:
        """When the first of them passes (monotonic)."""
        times = [self._lease_end(entry) for entry in entries]
        times += [now + entry.job.expire_time - wall for entry in waiting if entry.job.expire_time]
        return min((at for at in times if at is not None), default=None)

    def overdue(
        self, entries: Iterable[Entry], waiting: Iterable[Entry], now: float, wall: float
    ) -> list[tuple[Entry, State, Error]]:
        """Those whose time has passed, each once, with their ends."""
        late = Error("EXPIRED", "its turn came after its expire_time", "send it again")
        alone = Error(
            "CANCELLED", f"nobody watched it for {self.lease_s:g} s", "`--detach` makes jobs that need no watcher"
        )
        expired = [entry for entry in waiting if entry.job.expire_time is not None and entry.job.expire_time <= wall]
        left = [entry for entry in entries if entry not in expired and self._is_left(entry, now)]
        return [(entry, State.FAILED, late) for entry in expired] + [(entry, State.CANCELLED, alone) for entry in left]

    def _is_left(self, entry: Entry, now: float) -> bool:
        lease_end = self._lease_end(entry)
        return lease_end is not None and lease_end <= now

    def _lease_end(self, entry: Entry) -> float | None:
        if not entry.job.lease or self.hub.is_watched(entry.job.id):
            return None
        return entry.last_watched + self.lease_s
