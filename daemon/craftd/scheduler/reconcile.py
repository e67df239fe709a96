"""Are memory and store of one mind? Looked at all the time, mended where they are not, and said aloud.

Nothing here should ever find anything: what it mends is a bug elsewhere, which it keeps from
costing anybody a job.
"""

from __future__ import annotations

import asyncio
import logging

from craftd.jobs import store
from craftd.scheduler.active_jobs import ActiveJobs
from craftd.store.database import Database

_log = logging.getLogger("craft.jobs")
_EVERY_S = 10.0


class Reconciler:
    """What differs at two looks in a row, and not only while something is on its way, is mended."""

    def __init__(self, database: Database, jobs: ActiveJobs, every_s: float = _EVERY_S) -> None:
        self._database = database
        self._jobs = jobs
        self._every_s = every_s
        self._seen: dict[str, str] = {}  # job -> what was amiss with it at the last look
        self.mended = 0

    @property
    def warnings(self) -> tuple[str, ...]:
        return (f"{self.mended} jobs were out of step with the store, and mended: see the log",) if self.mended else ()

    async def run(self) -> None:
        """For ever."""
        while True:
            await asyncio.sleep(self._every_s)
            try:
                await self.look()
            except Exception:  # a boundary: a disk that cannot be read now is looked at again
                _log.exception("memory and store were not compared")

    async def look(self) -> int:
        """Compare, and mend what was amiss the last time too; how many jobs were mended."""
        stored = await self._database.look(store.unfinished)
        amiss = self._amiss(stored)
        certain = {job_id: what for job_id, what in amiss.items() if self._seen.get(job_id) == what}
        self._seen = {job_id: what for job_id, what in amiss.items() if job_id not in certain}
        for job_id, what in certain.items():
            _log.error("out of step", extra={"job": job_id, "what": what})
            await self._mend(job_id)
        self.mended += len(certain)
        return len(certain)

    def _amiss(self, stored: set[str]) -> dict[str, str]:
        found = dict.fromkeys(stored, "stored as unfinished, and unknown here")
        for active in self._jobs:
            found.pop(active.job.id, None)
            if active.job.id not in stored and active.ending is None:
                found[active.job.id] = "unfinished here, and not in the store"
            elif self._jobs.is_lost(active):
                found[active.job.id] = "neither waiting nor anywhere else"
        return found

    async def _mend(self, job_id: str) -> None:
        views = await self._database.look(lambda connection: store.views(connection, [job_id]))
        active = self._jobs.get(job_id)
        if active is None:
            for view in views:
                if not view.job.state.is_final:
                    self._jobs.accept(view.job, view.images, view.removed)
        elif views and views[0].job.state.is_final:
            self._jobs.adopt_end(active, views[0])
        elif self._jobs.is_lost(active):
            self._jobs.requeue(active, is_suspect=active.job.is_suspect, attempts=active.job.attempts)
