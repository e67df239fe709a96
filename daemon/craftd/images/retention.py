"""Pictures are kept for so many days and up to so many bytes; then the oldest go.

A picture of an unfinished job stays, since the job is not drawn twice, and so does one so young
that whoever asked for it may still be fetching it. The file goes first: a picture whose row is left
when the power fails is swept again, one whose file is left would be kept for ever.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial

import apsw
from craft_protos.reasons import CraftError
from craft_protos.settings import ImageSettings

from craftd.images import table
from craftd.images.files import ImageFiles
from craftd.store.database import Database
from craftd.store.room import Room

_log = logging.getLogger("craft.images")
_EVERY_S = 60.0
_YOUNG_S = 300.0
_AT_ONCE = 100
_DAY_S = 86400.0
_GIB = 1 << 30


@dataclass(frozen=True)
class Kept:
    """What the sweeper must know of a picture."""

    id: str
    seq: int
    create_time: float
    size_bytes: int
    file: str


class Retention:
    """The images folder's sweeper. `now`: seconds since 1970."""

    def __init__(
        self,
        database: Database,
        files: ImageFiles,
        settings: ImageSettings,
        now: Callable[[], float] = time.time,
        *,
        room: Room | None = None,
    ) -> None:
        self._room = room
        self._database = database
        self._files = files
        self._settings = settings
        self._now = now

    async def run(self) -> None:
        """For ever; at once, where everything is kept."""
        while self._settings.keep_days or self._settings.max_gib:
            try:
                await self.sweep()
            except CraftError as exc:  # a full disk, say: the next sweep may do better
                _log.error("old pictures could not be swept", extra={"why": exc.message})
            await asyncio.sleep(_EVERY_S)

    async def sweep(self) -> int:
        """How many pictures were removed."""
        removed = 0
        if self._settings.keep_days:
            removed += await self._remove_older_than(self._settings.keep_days * _DAY_S)
        if self._settings.max_gib:
            removed += await self._remove_beyond(int(self._settings.max_gib * _GIB))
        if removed:
            _log.info("swept old pictures", extra={"pictures": removed})
        return removed

    async def prune(self, age_s: float, *, dry_run: bool) -> tuple[int, int]:
        """(pictures, bytes) of those that old, removed unless it is a dry run; what is young stays."""
        count = size_bytes = 0
        async with aclosing(self._removable(max(age_s, _YOUNG_S))) as portions:
            async for portion in portions:
                gone = portion if dry_run else await self._remove(portion)
                count, size_bytes = count + len(gone), size_bytes + sum(one.size_bytes for one in gone)
        return count, size_bytes

    async def _remove_older_than(self, age_s: float) -> int:
        removed = 0
        async with aclosing(self._removable(max(age_s, _YOUNG_S))) as portions:
            async for portion in portions:
                removed += len(await self._remove(portion))
        return removed

    async def _remove_beyond(self, most_bytes: int) -> int:
        excess = await self._database.run(_total_bytes) - most_bytes
        removed = 0
        if excess <= 0:
            return 0
        async with aclosing(self._removable(_YOUNG_S)) as portions:
            async for portion in portions:
                gone = await self._remove(_first_of(portion, excess))
                excess -= sum(one.size_bytes for one in gone)
                removed += len(gone)
                if excess <= 0:
                    break
        return removed

    async def _removable(self, age_s: float) -> AsyncGenerator[list[Kept], None]:
        """Those that are older, oldest first."""
        before, last = self._now() - age_s, (-math.inf, 0)
        while found := await self._database.run(partial(_oldest, before=before, after=last)):
            yield found
            last = (found[-1].create_time, found[-1].seq)

    async def _remove(self, portion: list[Kept]) -> list[Kept]:
        """Those whose files are gone; the rows of the others stay, as their files do."""
        gone = await asyncio.to_thread(lambda: [one for one in portion if self._files.delete(one.file)])
        if len(gone) < len(portion):
            _log.error("old pictures could not be deleted", extra={"pictures": len(portion) - len(gone)})
        try:
            await self._database.run(lambda connection: _forget(connection, gone))
        except CraftError as exc:
            if exc.reason != "DISK_FULL" or self._room is None:
                raise
            await asyncio.to_thread(self._room.give)
            await self._database.run(lambda connection: _forget(connection, gone))
        return gone


def _first_of(portion: list[Kept], excess: int) -> list[Kept]:
    """As many as make up for that many bytes."""
    taken: list[Kept] = []
    for one in portion:
        if excess <= 0:
            break
        taken.append(one)
        excess -= one.size_bytes
    return taken


def total(connection: apsw.Connection) -> tuple[int, int]:
    """(how many, bytes) of all pictures."""
    row = connection.execute("SELECT count(*), coalesce(sum(size_bytes), 0) FROM images").get
    return int(row[0]), int(row[1])


def _total_bytes(connection: apsw.Connection) -> int:
    return int(connection.execute("SELECT coalesce(sum(size_bytes), 0) FROM images").get)


def _oldest(connection: apsw.Connection, before: float, after: tuple[float, int]) -> list[Kept]:
    rows = connection.execute(
        "SELECT images.id, images.seq, images.create_time, images.size_bytes, images.file"
        " FROM images JOIN jobs ON jobs.id = images.job_id"
        " WHERE images.create_time < ? AND (images.create_time, images.seq) > (?, ?)"
        " AND jobs.state NOT IN ('QUEUED', 'RUNNING') ORDER BY images.create_time, images.seq LIMIT ?",
        (before, *after, _AT_ONCE),
    )
    return [Kept(*row) for row in rows]


def _forget(connection: apsw.Connection, gone: list[Kept]) -> None:
    for one in gone:
        table.delete(connection, one.id)
