"""Images: stored, shown, deleted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

from craft_protos.reasons import CraftError, invalid

from craftd.images import table
from craftd.images.files import ImageFiles
from craftd.images.image import Image
from craftd.store.database import Database

_log = logging.getLogger("craft.images")
_LARGEST_PAGE = 1000
_USUAL_PAGE = 50


class ImageService:
    def __init__(self, database: Database, files: ImageFiles) -> None:
        self._database = database
        self._files = files

    async def get(self, prefix: str, scope: str) -> Image:
        """By id or a unique beginning of it. `scope`: whose; "" for everybody's. Raises UNKNOWN_IMAGE, AMBIGUOUS_ID."""
        return await self._database.run(lambda connection: table.find(connection, prefix, scope))

    async def public(self, image_id: str) -> Image:
        """An image that whoever has its id may see. Raises UNKNOWN_IMAGE, for private ones too."""
        image = await self._database.run(lambda connection: table.find_public(connection, image_id))
        if image is None:
            raise CraftError("UNKNOWN_IMAGE", "no public image has this id", "is the address whole?")
        return image

    async def chunks(self, image: Image) -> AsyncIterator[bytes]:
        """The file's bytes."""
        chunks = self._files.chunks(image.file_name)
        while chunk := await asyncio.to_thread(next, chunks, b""):
            yield chunk

    async def list(self, page_size: int, page_token: str, job_id: str, scope: str) -> list[tuple[int, Image]]:
        """(token of the page that begins after it, image), newest first."""
        count, before = page_of(page_size, page_token)
        return await self._database.run(lambda connection: table.newest(connection, count, before, job_id, scope))

    async def delete(self, prefix: str, scope: str) -> None:
        """File and row: the file goes first, since what has no row is kept at the next start."""
        image = await self.get(prefix, scope)
        await asyncio.to_thread(self._files.delete, image.file_name)
        await self._database.run(lambda connection: table.delete(connection, image.id))

    async def save(self, image: Image, data: bytes) -> None:
        """The file alone; the row is written with the job's. Raises DISK_FULL, STORAGE_FAILED."""
        await asyncio.to_thread(self._files.save, image.file_name, data)

    async def discard(self, image: Image) -> None:
        await asyncio.to_thread(self._files.delete, image.file_name)

    async def sweep(self) -> str:
        """Clear up what a crash left behind; what the user should hear of it. Only before anything is drawn."""
        known = await self._database.run(table.file_names)
        swept = await asyncio.to_thread(self._files.sweep, known)
        if swept.removed:
            _log.info("swept the images folder", extra={"files": swept.removed})
        if not swept.set_aside:
            return ""
        folder = str(self._files.orphans)
        _log.warning("pictures that the database does not know", extra={"files": swept.set_aside, "kept_in": folder})
        return f"{swept.set_aside} pictures that the database does not know were moved to {folder}"


def page_of(page_size: int, page_token: str) -> tuple[int, int | None]:
    """(how many, below which seq) of a request for a page."""
    if page_token and not (page_token.isascii() and page_token.isdigit() and len(page_token) < 19):
        raise invalid("page_token", f"{page_token[:32]!r} is not one that this daemon gave")
    return min(page_size or _USUAL_PAGE, _LARGEST_PAGE), int(page_token) if page_token else None
