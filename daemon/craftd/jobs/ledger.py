"""What is stored of jobs and their images while they run; one owner of what is still to be written."""

from __future__ import annotations

import asyncio
import logging

from craft_protos.reasons import CraftError

from craftd.images.image import Image
from craftd.images.service import ImageService
from craftd.jobs import table
from craftd.jobs.job import Job
from craftd.store.database import Database

_log = logging.getLogger("craft.jobs")


class Ledger:
    """Writes follow in the order of the calls."""

    def __init__(self, database: Database, images: ImageService) -> None:
        self._database = database
        self._images = images
        self._unsaved: dict[str, Job] = {}

    @property
    def has_unsaved(self) -> bool:
        """Some writes failed, and wait for `save_again`."""
        return bool(self._unsaved)

    def save(self, job: Job) -> asyncio.Future[None]:
        """Queue the write. One that fails (a full disk) is to be tried again until it succeeds."""
        self._unsaved.pop(job.id, None)
        saved = self._database.submit(lambda connection: table.update(connection, job))
        saved.add_done_callback(lambda future: self._on_saved(job, future))
        return saved

    def save_again(self) -> None:
        for job in list(self._unsaved.values()):
            self.save(job)

    def latest(self, stored: Job) -> Job:
        """That job, or what is newer and not written yet."""
        return self._unsaved.get(stored.id, stored)

    async def add_image(self, image: Image, data: bytes, running: Job, succeeded: Job) -> Job:
        """The file, then the row, so that no row names a file that isn't whole; `succeeded` with the last of them.

        Raises DISK_FULL, STORAGE_FAILED, leaving nothing behind.
        """
        try:
            await self._images.save(image, data)
            return await self._database.run(
                lambda connection: table.commit_image(connection, image, running, succeeded)
            )
        except CraftError:
            await self._images.discard(image)
            raise

    def _on_saved(self, job: Job, future: asyncio.Future[None]) -> None:
        if not future.cancelled() and (exc := future.exception()) is not None:
            _log.error("job not saved", extra={"job": job.id, "why": str(exc)})
            self._unsaved.setdefault(job.id, job)
