"""Datasets: received, checked, kept for as long as somebody trains on them."""

from __future__ import annotations

import asyncio
import logging
import re
import time
import unicodedata
from collections.abc import AsyncGenerator, Collection
from pathlib import Path

from craft_protos.reasons import CraftError, invalid
from craft_protos.settings import LimitSettings

from craftd.datasets import sorting, table
from craftd.datasets.dataset import (
    FEWEST,
    MOST_REPEATS,
    MOST_SHOWN,
    BadPicture,
    Dataset,
    Incoming,
    Progress,
    Upload,
    id_of,
)
from craftd.store.contents import Contents, Received, Tray
from craftd.store.database import Database
from craftd.store.uploads import PATIENCE_S, Uploads
from craftd.workers.pictures import InspectPictures, PictureFindings

_log = logging.getLogger("craft.datasets")
_LONGEST_NAME = 255  # characters
_SHOWN = 5  # of bad pictures, in an error
_KEPT_UPLOADS = 4  # of the largest size, for each owner


class DatasetService:
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
        self._uploads = Uploads("pictures", patience_s)
        self._changing = asyncio.Lock()  # files and rows change together

    async def get(self, dataset_id: str, scope: str, owner: str) -> Dataset:
        """The owner's, or another that the scope holds; "": anybody's. Raises UNKNOWN_DATASET.

        Equal pictures may lie there under other names, sent by somebody else.
        """
        return await self._database.run(lambda connection: table.find(connection, dataset_id, scope, owner))

    def path(self, sha256: str) -> Path:
        return self._files.path(sha256)

    async def receive(self, upload: Upload) -> AsyncGenerator[Progress | Dataset, None]:
        """How far it is, then the dataset, durable. Raises BAD_DATASET, INVALID_FIELD, DISK_FULL, STORAGE_FAILED."""
        if not FEWEST <= upload.count <= self._limits.max_pictures:
            raise _few_or_many(upload.count, self._limits.max_pictures)
        if upload.masks > upload.count:
            raise invalid("masks", f"are {upload.masks} for {upload.count} pictures", "send one for each at most")
        async with self._uploads.room(upload.owner):
            tray = self._files.tray()
            try:
                pictures = await self._take_in(upload, tray)
                checked: list[tuple[Incoming, Received, PictureFindings]] = []
                async for found in self._inspect([received.path for _, received in pictures]):
                    checked.append((*pictures[len(checked)], found))
                    yield Progress(len(checked), upload.files)
                yield await self._keep(upload, checked)
            except OSError as exc:
                raise self._files.unwritable(exc) from exc
            finally:
                await asyncio.shield(asyncio.to_thread(tray.remove))

    async def sweep(self, needed: Collection[str], older_than_s: float, *, at_start: bool = False) -> None:
        """Forget the datasets of that age that are not `needed` (by id), and their files."""
        async with self._changing:
            before = time.time() - older_than_s
            forgotten = await self._database.run(lambda connection: table.forget(connection, before, needed))
            known = await self._database.run(table.hashes)
            removed = await asyncio.to_thread(self._files.sweep, known, at_start=at_start)
        if forgotten or removed:
            _log.info("swept the datasets", extra={"datasets": forgotten, "files": removed})

    async def forgettable(self, needed: Collection[str], before: float) -> tuple[int, int]:
        """(pictures, bytes) of the datasets older than `before` that are not `needed`."""
        return await self._database.look(lambda connection: table.forgettable(connection, before, needed))

    async def _take_in(self, upload: Upload, tray: Tray) -> list[tuple[Incoming, Received]]:
        """Every picture on disk."""
        incoming: list[Incoming] = []
        taken: list[tuple[Incoming, Received]] = []
        left = total = 0
        while (part := await self._uploads.next(upload.parts, incoming[-1].file_name if incoming else "")) is not None:
            if isinstance(part, Incoming):
                if left:
                    raise _cut_short(incoming[-1])
                self._check(part, incoming, upload)
                incoming.append(part)
                left = part.size_bytes
                await asyncio.to_thread(tray.begin)
                continue
            left -= len(part)
            total += len(part)
            if not incoming or left < 0:
                raise invalid("chunk", "belongs to no picture", "name the picture and its size first")
            if total > self._limits.max_dataset_bytes:
                raise _bad(
                    f"the pictures have more than {self._limits.max_dataset_bytes} bytes, the limit", "send less"
                )
            await asyncio.to_thread(tray.add, part)
            if not left:
                taken.append((incoming[-1], await asyncio.to_thread(tray.end)))
        if left:
            raise _cut_short(incoming[-1])
        if len(taken) != upload.files:
            raise _bad(f"{len(taken)} pictures came where {upload.files} were announced", "send them again")
        return taken

    def _check(self, part: Incoming, before: list[Incoming], upload: Upload) -> None:
        """Raises INVALID_FIELD, BAD_DATASET."""
        name, most = part.file_name, self._limits.max_picture_bytes
        if not 0 < len(name) <= _LONGEST_NAME or not name.isprintable() or re.search(r"[/\\]", name):
            raise invalid("picture.file_name", f"{name[:100]!r} is no file's name", "name it like it.png")
        if name in {one.file_name for one in before}:
            raise invalid("picture.file_name", f"{name!r} comes twice", "give each picture a name of its own")
        if len(before) == upload.files:
            raise _bad(f"more pictures came than the {upload.files} that were announced", "send them again")
        _check_repeats(part, before)
        _check_mask(part, before)
        if not 0 < part.size_bytes <= most:
            raise _bad(f"{name}: has {part.size_bytes} bytes; a picture may have from 1 to {most}", "leave it out")
        if len(part.caption) > self._limits.max_prompt_chars:
            raise _bad(f"{name}: its caption has {len(part.caption)} characters", "shorten it")
        if any(unicodedata.category(one) in ("Cc", "Cs") and one not in "\t\n\r" for one in part.caption):
            raise _bad(f"{name}: its caption has a control character", "remove it")

    async def _keep(self, upload: Upload, checked: list[tuple[Incoming, Received, PictureFindings]]) -> Dataset:
        """The good ones; all of them where none may be left out."""
        good, left_out, bad = sorting.sort(checked)
        if bad and not upload.skip_bad:
            raise _all_bad(bad)
        if len(good) < FEWEST:
            raise _too_few(len(good), left_out)
        pictures = tuple(one.picture for one in good)
        dataset = Dataset(id_of(pictures), upload.owner, pictures, tuple(left_out), time.time())
        await self._store(dataset, [file for one in good for file in one.files])
        return dataset

    async def _store(self, dataset: Dataset, received: list[Received]) -> None:
        """Files, then rows, whatever becomes of the caller meanwhile."""
        most = _KEPT_UPLOADS * self._limits.max_dataset_bytes
        async with self._changing:
            stored = await self._database.run(lambda connection: table.stored_bytes(connection, dataset.owner))
            if stored + sum(one.size_bytes for one in received) > most:
                raise _bad(
                    f"the pictures sent lately have {stored} bytes; with these it were over {most}, the limit",
                    "what no training needs is removed after a day",
                )
            await asyncio.shield(self._publish(dataset, received))
        _log.info("dataset received", extra={"dataset": dataset.id, "pictures": len(dataset.pictures)})

    async def _publish(self, dataset: Dataset, received: list[Received]) -> None:
        await asyncio.to_thread(self._files.publish, received)
        await self._database.run(lambda connection: table.put(connection, dataset))


def _check_repeats(part: Incoming, before: list[Incoming]) -> None:
    shown = sum(one.repeats for one in [*before, part] if not one.mask_of)
    if not 1 <= part.repeats <= MOST_REPEATS:
        raise _bad(f"{part.file_name}: comes {part.repeats} times an epoch; the limit is {MOST_REPEATS}", "take fewer")
    if shown > MOST_SHOWN:
        raise _bad(f"they come {shown} times in an epoch; the limit is {MOST_SHOWN}", "take fewer repeats")


def _check_mask(part: Incoming, before: list[Incoming]) -> None:
    if not part.mask_of:
        return
    if part.mask_of not in {one.file_name for one in before if not one.mask_of}:
        raise invalid("picture.mask_of", f"{part.mask_of[:100]!r} is no picture", "send the picture before its mask")
    if part.mask_of in {one.mask_of for one in before}:
        raise invalid("picture.mask_of", f"{part.mask_of[:100]!r} has two masks", "send one")


def _few_or_many(count: int, most: int) -> CraftError:
    if count < FEWEST:
        return _too_few(count, [])
    return _bad(f"{count} pictures are too many; the limit is {most}", "take the best of them")


def _too_few(count: int, left_out: list[BadPicture]) -> CraftError:
    noun = "picture is" if count == 1 else "pictures are"
    without = f", without {_shown(left_out)}" if left_out else ""
    return _bad(f"{count} {noun} too few{without}", f"take {FEWEST} or more; ten different ones teach a thing well")


def _all_bad(bad: list[BadPicture]) -> CraftError:
    return _bad(_shown(bad), "--skip-bad leaves out what cannot be trained on")


def _shown(bad: list[BadPicture]) -> str:
    more = f"; and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
    return "; ".join(f"{one.file_name} {one.why}" for one in bad[:_SHOWN]) + more


def _cut_short(part: Incoming) -> CraftError:
    return CraftError("CORRUPT_FILE", f"{part.file_name}: less than its {part.size_bytes} bytes came", "send it again")


def _bad(message: str, hint: str) -> CraftError:
    return CraftError("BAD_DATASET", f"pictures: {message}", hint, field="pictures")
