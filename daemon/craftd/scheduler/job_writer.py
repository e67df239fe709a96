"""What is stored of jobs while they run. The store is the truth: what clients are told of an end, it says already.

Where a job stands in between (it runs; a worker died of it, perhaps) is written a moment
later, and always the newest that is known: a write that failed never undoes a later one.
"""

from __future__ import annotations

import asyncio
import logging

from craft_protos.reasons import CraftError

from craftd.images.image import Image
from craftd.images.service import ImageService
from craftd.jobs import store
from craftd.jobs.job import Job
from craftd.scheduler.pauses import DISK, Pauses, is_of_surroundings
from craftd.store.database import Database

_log = logging.getLogger("craft.jobs")
_SOON_S = 0.5  # a job that ends sooner costs no write in between


class JobWriter:
    """Faults of the disk are waited out, in `pauses`."""

    def __init__(self, database: Database, images: ImageService, pauses: Pauses) -> None:
        self._database = database
        self._images = images
        self._pauses = pauses
        self._noted: dict[str, Job] = {}  # the newest of each that is not known to be stored
        self._has_some = asyncio.Event()
        self._is_urgent = asyncio.Event()

    def note(self, job: Job, *, is_urgent: bool = False) -> None:
        """Have the store know where an unfinished job stands, before long. `is_urgent`: at once."""
        self._noted[job.id] = job
        self._has_some.set()
        if is_urgent:
            self._is_urgent.set()

    def forget(self, job_id: str) -> None:
        """It has ended, or has written itself."""
        self._noted.pop(job_id, None)

    async def run(self) -> None:
        """Write what is noted, for ever."""
        while True:
            await self._has_some.wait()
            await self._linger()
            self._has_some.clear()
            self._is_urgent.clear()
            await self._pauses.outlast(DISK, self.flush)

    async def flush(self) -> None:
        """Write what is noted now. Raises DISK_FULL, STORAGE_FAILED, and it stays noted."""
        noted = list(self._noted.values())
        if noted:
            await self._database.run(lambda connection: store.update_all(connection, noted))
        for job in noted:
            if self._noted.get(job.id) is job:
                del self._noted[job.id]

    async def finish(self, ended: Job) -> Job:
        """The job's end, as it is stored: another one, where that came first."""
        return await self._pauses.outlast(
            DISK, lambda: self._database.run(lambda connection: store.finish(connection, ended))
        )

    async def add_image(self, image: Image, data: bytes, running: Job, succeeded: Job) -> tuple[Image, Job]:
        """The file, then the row, so that no row names a file that isn't whole; `succeeded` with the last of them.

        Raises JOB_FINISHED where it comes too late, leaving nothing behind.
        """
        return await self._pauses.outlast(DISK, lambda: self._try_image(image, data, running, succeeded))

    async def _try_image(self, image: Image, data: bytes, running: Job, succeeded: Job) -> tuple[Image, Job]:
        try:
            whole = await self._images.save(image, data)
            job = await self._database.run(lambda connection: store.commit_image(connection, whole, running, succeeded))
        except CraftError as exc:
            if not is_of_surroundings(exc):  # else it is tried again, and the row may be on the disk all the same
                await self._images.discard(image)
            raise
        return whole, job

    async def _linger(self) -> None:
        try:
            async with asyncio.timeout(_SOON_S):
                await self._is_urgent.wait()
        except TimeoutError:
            return
