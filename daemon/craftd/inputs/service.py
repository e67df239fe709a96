"""Inputs: received, checked, kept while jobs need them and a day longer."""

from __future__ import annotations

import asyncio
import logging
import re
import time
import weakref
from dataclasses import replace
from pathlib import Path

from craft_protos.reasons import CraftError, invalid
from craft_protos.settings import LimitSettings

from craftd.inputs import table
from craftd.inputs.input import KEPT_S, Found, Input, Upload
from craftd.store.contents import Contents, Received, Receiving
from craftd.store.database import Database
from craftd.store.uploads import PATIENCE_S, Uploads
from craftd.workers.pictures import InspectPictures

_log = logging.getLogger("craft.inputs")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_YOUNG_S = 600.0  # what was sent just now is about to be drawn with: it makes no room for others


class InputService:
    def __init__(
        self,
        database: Database,
        files: Contents,
        inspect: InspectPictures,
        limits: LimitSettings,
        *,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._database = database
        self._files = files
        self._inspect = inspect
        self._limits = limits
        self._uploads = Uploads("picture", patience_s)
        self._changing = asyncio.Lock()  # files and rows change together
        self._locks = weakref.WeakValueDictionary[tuple[str, str], asyncio.Lock]()

    async def open(self) -> None:
        """At the start."""
        await self.sweep()

    async def find(self, scope: str, owner: str, sha256: str) -> Found:
        """What is here of the owner's, or of another that the scope holds; "": anybody's. Raises INVALID_FIELD."""
        check_sha256("sha256", sha256)
        found = await self._find(scope, owner, sha256)
        if found is not None:
            return Found(found)
        return Found(None, await asyncio.to_thread(self._files.received_bytes, owner, sha256))

    async def use(self, scope: str, owner: str, sha256: str, field: str) -> Input:
        """One that a job of the owner's is about to need: from now on it is theirs too. Raises UNKNOWN_INPUT."""
        used = await self._use(scope, owner, sha256)
        if used is None:
            raise _unknown(sha256, field)
        return used

    async def file(self, owner: str, sha256: str, field: str) -> tuple[Input, Path]:
        """One that a job of the owner's needs now. Raises UNKNOWN_INPUT where it is gone."""
        found = await self._find(owner, owner, sha256)
        if found is None:
            raise _unknown(sha256, field)
        return found, self._files.path(sha256)

    async def put(self, upload: Upload) -> Input:
        """Durable on return. Raises BAD_INPUT, INVALID_FIELD, CORRUPT_FILE, DISK_FULL, STORAGE_FAILED."""
        self._check(upload)
        lock = self._locks.setdefault((upload.owner, upload.sha256), asyncio.Lock())
        async with lock, self._uploads.room(upload.owner):
            if (there := await self._use(upload.owner, upload.owner, upload.sha256)) is not None:
                return there
            await self._make_room(upload)
            try:
                received = await self._receive(upload)
                return await self._publish(await self._inspected(upload, received), received)
            except OSError as exc:
                raise self._files.unwritable(exc) from exc

    async def sweep(self, older_than_s: float = KEPT_S) -> None:
        """Forget those that were not used for so long and that no job needs, and their files."""
        now = time.time()
        async with self._changing:
            await self._database.run(lambda connection: table.note_needed(connection, now))
            forgotten = await self._database.run(lambda connection: table.forget(connection, now - older_than_s))
            known = await self._database.run(table.hashes)
            removed = await asyncio.to_thread(self._files.sweep, known, cut_before=now - older_than_s)
        if forgotten or removed:
            _log.info("swept the inputs", extra={"inputs": forgotten, "files": removed})

    async def forgettable(self, older_than_s: float) -> tuple[int, int]:
        """(pictures, bytes) that `sweep` would remove, by the rows."""
        before = time.time() - older_than_s
        return await self._database.look(lambda connection: table.forgettable(connection, before))

    async def forget(self, owner: str) -> None:
        """All of an owner's."""
        async with self._changing:
            await self._database.run(lambda connection: table.forget_all(connection, owner))
            await asyncio.to_thread(self._files.drop_all, owner)
        await self.sweep()

    async def _use(self, scope: str, owner: str, sha256: str) -> Input | None:
        async with self._changing:
            found = await self._find(scope, owner, sha256)
            return found and await self._keep(replace(found, owner=owner, use_time=time.time()))

    async def _find(self, scope: str, owner: str, sha256: str) -> Input | None:
        """One whose file is here."""
        found = await self._database.look(lambda connection: table.find(connection, sha256, scope, owner))
        if found is None:
            return None
        is_here = await asyncio.to_thread(self._files.path(sha256).is_file)
        return found if is_here else None

    def _check(self, upload: Upload) -> None:
        """Raises INVALID_FIELD, BAD_INPUT."""
        check_sha256("sha256", upload.sha256)
        most = self._limits.max_picture_bytes
        if not 0 < upload.size_bytes <= most:
            step = "send a smaller one" if upload.size_bytes > most else "send a whole picture"
            raise bad_input(f"has {upload.size_bytes} bytes; a picture may have from 1 to {most}", step)
        if upload.offset > upload.size_bytes:
            raise invalid("offset", f"{upload.offset} is beyond the picture's {upload.size_bytes} bytes")

    async def _make_room(self, upload: Upload) -> None:
        """Within what an owner may have here; what was not used lately makes room. Raises BAD_INPUT."""
        owner, most, before = upload.owner, self._limits.max_inputs_bytes, time.time() - _YOUNG_S
        async with self._changing:
            stored = await self._database.look(lambda connection: table.stored_bytes(connection, owner))
            over = stored + upload.size_bytes - most
            if over <= 0:
                return
            freed = await self._database.run(lambda connection: table.make_room(connection, owner, over, before))
        if freed < over:
            raise bad_input(
                f"the pictures sent lately have {stored} bytes; with this one they were over {most}, the limit",
                "wait until jobs that need them have ended",
            )

    async def _receive(self, upload: Upload) -> Received:
        """All of it; what came before a cut is kept."""
        here = await asyncio.to_thread(self._files.received_bytes, upload.owner, upload.sha256)
        if upload.offset > here:
            message = f"{here} bytes of it are here, not {upload.offset}"
            raise invalid("offset", message, "begin with what FindInput says")
        receiving = await asyncio.to_thread(self._files.receive, upload.owner, upload.sha256, upload.offset)
        try:
            await self._take_in(upload, receiving)
            received = await asyncio.to_thread(receiving.end)
        finally:
            receiving.close()
        if received.sha256 != upload.sha256:
            await self._drop(upload)
            raise CraftError("CORRUPT_FILE", "picture: what came has another sha256 than was said", "send it again")
        return received

    async def _take_in(self, upload: Upload, receiving: Receiving) -> None:
        left = upload.size_bytes - upload.offset
        while left and (chunk := await self._uploads.next(upload.chunks)) is not None:
            left -= len(chunk)
            if left < 0:
                await self._drop(upload)
                raise invalid("chunk", f"more came than the {upload.size_bytes} bytes that were said")
            await asyncio.to_thread(receiving.add, chunk)
        if left:
            message = f"picture: {left} of its {upload.size_bytes} bytes did not come"
            raise CraftError("CORRUPT_FILE", message, "send the rest: FindInput says what is here")

    async def _inspected(self, upload: Upload, received: Received) -> Input:
        """Raises BAD_INPUT."""
        (found,) = [one async for one in self._inspect([received.path])]
        if found.why:
            await self._drop(upload)
            raise bad_input(found.why, "send one frame as PNG, JPEG or WebP")
        return Input(
            owner=upload.owner,
            sha256=received.sha256,
            size_bytes=received.size_bytes,
            media_type=found.media_type,
            width=found.width,
            height=found.height,
            has_alpha=found.has_alpha,
            use_time=time.time(),
        )

    async def _publish(self, made: Input, received: Received) -> Input:
        """The file, then the row, whatever becomes of the caller meanwhile."""

        async def publish() -> Input:
            async with self._changing:
                await asyncio.to_thread(self._files.publish, [received])
                return await self._keep(made)

        return await asyncio.shield(asyncio.ensure_future(publish()))

    async def _keep(self, made: Input) -> Input:
        await self._database.run(lambda connection: table.put(connection, made))
        return made

    async def _drop(self, upload: Upload) -> None:
        await asyncio.to_thread(self._files.drop, upload.owner, upload.sha256)


def check_sha256(field: str, sha256: str) -> None:
    """Raises INVALID_FIELD."""
    if not _SHA256.fullmatch(sha256):
        raise invalid(field, f"must be the 64 hexadecimal digits of a picture's sha256, not {sha256[:70]!r}")


def bad_input(why: str, hint: str) -> CraftError:
    return CraftError("BAD_INPUT", f"picture: {why}", hint, field="picture")


def _unknown(sha256: str, field: str) -> CraftError:
    message = f"{field}: no picture {sha256[:12]} of yours is here (any more)"
    return CraftError("UNKNOWN_INPUT", message, "send it again", field=field)
