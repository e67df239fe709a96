"""Images: stored, shown, deleted."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial

from craft_protos.reasons import CraftError, invalid

from craftd.images import table
from craftd.images.files import ImageFiles, Swept, sha256_of
from craftd.images.image import Image
from craftd.images.search import ALL, Search
from craftd.store.database import Database
from craftd.store.room import Room

_log = logging.getLogger("craft.images")
_LARGEST_PAGE = 1000
_USUAL_PAGE = 50


class ImageService:
    def __init__(self, database: Database, files: ImageFiles, room: Room | None = None) -> None:
        self._database = database
        self._room = room
        self._files = files
        self._since = time.time()  # what is older was there before this daemon
        self._saved: set[str] | None = set()  # by this daemon, until the sweep is over: whatever the clock says

    async def get(self, prefix: str, scope: str) -> Image:
        """By id or a unique beginning of it. `scope`: whose; "" for everybody's. Raises UNKNOWN_IMAGE, AMBIGUOUS_ID."""
        return await self._database.look(lambda connection: table.find(connection, prefix, scope))

    async def public(self, image_id: str) -> Image:
        """An image that whoever has its id may see. Raises UNKNOWN_IMAGE, for private ones too."""
        image = await self._database.look(lambda connection: table.find_public(connection, image_id))
        if image is None:
            raise CraftError("UNKNOWN_IMAGE", "no public image has this id", "is the address whole?")
        return image

    async def chunks(self, image: Image) -> AsyncIterator[bytes]:
        """The file's bytes."""
        chunks = self._files.chunks(image.file_name)
        while chunk := await asyncio.to_thread(next, chunks, b""):
            yield chunk

    async def list(
        self, page_size: int, page_token: str, job_id: str, scope: str, search: Search = ALL
    ) -> list[tuple[int, Image]]:
        """(token of the page that begins after it, image), newest first."""
        count, before = page_of(page_size, page_token)
        return await self._database.look(
            lambda connection: table.newest(connection, count, before, job_id, scope, search=search)
        )

    async def mark(self, prefix: str, scope: str, *, favourite: bool | None, public: bool | None) -> Image:
        """Say of an image what is not None. Raises UNKNOWN_IMAGE, AMBIGUOUS_ID."""
        image = await self.get(prefix, scope)
        return await self._database.run(
            lambda connection: table.mark(connection, image.id, favourite=favourite, public=public)
        )

    async def delete(self, prefix: str, scope: str) -> None:
        """File and row: the file goes first, since what has no row is kept at the next start."""
        image = await self.get(prefix, scope)
        await asyncio.to_thread(self._files.delete, image.file_name)
        try:
            await self._database.run(lambda connection: table.delete(connection, image.id))
        except CraftError as exc:
            if exc.reason != "DISK_FULL" or self._room is None:
                raise
            await asyncio.to_thread(self._room.give)  # a small file's bytes are too few for a row's pages
            await self._database.run(lambda connection: table.delete(connection, image.id))

    async def delete_all(self, owner: str) -> int:
        """All images of an owner's jobs; how many. Raises STORAGE_FAILED where a file stays: so does its row."""
        deleted = 0
        while found := await self._database.run(lambda connection: table.files_of(connection, owner, _USUAL_PAGE)):
            for image_id, name in found:
                if not await asyncio.to_thread(self._files.delete, name):
                    message = f"a picture of {owner} could not be deleted"
                    raise CraftError("STORAGE_FAILED", message, "see `craft daemon logs`")
                await self._database.run(partial(table.delete, image_id=image_id))
                deleted += 1
        return deleted

    async def save(self, image: Image, data: bytes) -> Image:
        """The file alone, and the image with its hash; the row is written with the job's.

        Raises DISK_FULL, STORAGE_FAILED.
        """

        if self._saved is not None:
            self._saved.add(image.file_name)

        def save() -> Image:
            self._files.save(image.file_name, data)
            return replace(image, sha256=sha256_of(data))

        return await asyncio.to_thread(save)

    async def discard(self, image: Image) -> None:
        await asyncio.to_thread(self._files.delete, image.file_name)

    async def sweep(self) -> str:
        """Clear up what a crash before this start left behind; what the user should hear of it."""
        swept, portions = Swept(), self._files.older(self._since)
        while names := await asyncio.to_thread(next, portions, None):
            unknown = await self._database.look(partial(table.unknown, names=names))
            swept += await asyncio.to_thread(self._files.sweep, unknown - (self._saved or set()))
        self._saved = None
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
