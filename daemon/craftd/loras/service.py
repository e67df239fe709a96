"""LoRAs: added, listed, found, edited, removed."""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from craft_protos.reasons import CraftError, invalid

from craftd.hub.client import fetch_files
from craftd.hub.repository import Address, Fetched, Listing
from craftd.loras import choosing, files, names, peft, table
from craftd.loras.files import LoraFiles
from craftd.loras.lora import HEAVIEST, Change, Linked, Look, Lora, Place, Progress, Remote, Source, Upload, Wish
from craftd.store.database import Database
from craftd.workers.inspector import InspectLora, LoraFindings

_log = logging.getLogger("craft.loras")
_MOST_AT_ONCE = 2
_LONGEST_TRIGGER = 500

Tell = Callable[[Progress], None]
Fetch = Callable[
    [Address, Callable[[Listing], Sequence[str]], Callable[[str, int, int], None]], Awaitable[tuple[Listing, Fetched]]
]


class LoraService:
    """Memory is the truth while the daemon runs; rows are written before it changes."""

    def __init__(
        self, database: Database, lora_files: LoraFiles, inspect: InspectLora, fetch: Fetch = fetch_files
    ) -> None:
        self._database = database
        self._files = lora_files
        self._inspect = inspect
        self._fetch = fetch
        self._loras: dict[str, Lora] = {}  # by id
        self._room = asyncio.Semaphore(_MOST_AT_ONCE)
        self._changing = asyncio.Lock()
        self._under_way: set[asyncio.Task[Lora]] = set()
        self._spoilt: dict[str, Look] = {}  # files that are known to hold something else now

    async def open(self) -> None:
        """Read what is stored, and remove what a crash left behind. Once, before anything else."""
        self._loras = {lora.id: lora for lora in await self._database.run(table.every)}
        known = {lora.place.path for lora in self._loras.values()}
        swept = await asyncio.to_thread(self._files.sweep, known)
        if swept:
            _log.info("swept the loras folder", extra={"files": swept})

    def list(self, base: str | None = None) -> list[Lora]:
        """By name; with `base`, only those of that architecture."""
        found = [lora for lora in self._loras.values() if base is None or (base and lora.base == base)]
        return sorted(found, key=lambda lora: lora.name)

    @property
    def embeddings(self) -> Sequence[Lora]:
        """Those that work where a prompt has their name."""
        return [lora for lora in self._loras.values() if lora.is_embedding]

    def names_for(self, base: str) -> tuple[str, ...]:
        """Of those of an architecture."""
        return tuple(lora.name for lora in self.list(base))

    def find(self, text: str) -> Lora:
        """By id, name, the beginning of a hash, or file name. Raises UNKNOWN_LORA, AMBIGUOUS_ID."""
        return names.find(text, self._loras.values())

    async def verified(self, text: str) -> Lora:
        """The LoRA, its file being what it was. Raises UNKNOWN_LORA, NO_INPUT, CORRUPT_FILE."""
        lora = self.find(text)
        path = lora.place.path
        try:
            now = await asyncio.to_thread(files.look, path)
        except CraftError as exc:
            raise CraftError(exc.reason, f"LoRA {lora.name}: {exc.message}", _add_again(lora), field="loras") from exc
        if now == lora.place.look:
            return lora
        if now == self._spoilt.get(lora.id) or await asyncio.to_thread(files.sha256_of, path) != lora.sha256:
            self._spoilt[lora.id] = now
            raise CraftError(
                "CORRUPT_FILE",
                f"LoRA {lora.name}: {path} has changed since it was added as {lora.sha256[:12]}",
                _add_again(lora),
                field="loras",
            )
        return await self._save(replace(lora, place=replace(lora.place, look=now)))

    async def add(self, source: Source, wish: Wish) -> AsyncGenerator[Progress | Lora, None]:
        """How far it is, then the LoRA. The same file again is the LoRA that it is already.

        Raises NAME_TAKEN, INVALID_FIELD, NO_INPUT, UNSAFE_*, CORRUPT_FILE, UNSUPPORTED_LORA, NOT_FINITE, DISK_FULL,
        and what the hub may answer.
        """
        _check_wish(wish)
        events: asyncio.Queue[Progress | None] = asyncio.Queue()
        adding = asyncio.create_task(self._add(source, wish, events.put_nowait), name="add a LoRA")
        adding.add_done_callback(lambda _: events.put_nowait(None))
        try:
            while (event := await events.get()) is not None:
                yield event
            yield await adding
        finally:
            adding.cancel()
            await asyncio.wait([adding])

    async def adopt(self, source: Path, name: str, trigger: str, preview: bytes = b"") -> Lora:
        """A file that craft has made, as that name, or with a number behind it where it is taken meanwhile.

        The same file again is the LoRA that it is already. Raises NOT_FINITE, CORRUPT_FILE, DISK_FULL, ...
        """
        path = await asyncio.to_thread(self._files.copy_in, source, f"{name}.safetensors")
        try:
            place, findings = await self._examine(path, "trained here", lambda _: None)
            new = _new(replace(place, is_owned=True), findings, name, Wish(trigger=trigger))
            lora = await self._until_done(self._register(new, may_rename=True))
        except CraftError as exc:  # whoever trained it need not know where it lies
            raise CraftError(exc.reason, exc.message.replace(f"{path.parent}/", ""), exc.hint) from exc
        finally:
            await asyncio.shield(asyncio.to_thread(self._files.discard, path))
        if preview:
            await self._database.run(lambda connection: table.set_preview(connection, lora.id, preview))
        return lora

    async def preview(self, lora: Lora) -> bytes:
        """A picture that it was trained to draw, or b""."""
        return await self._database.run(lambda connection: table.preview(connection, lora.id))

    async def update(self, text: str, change: Change) -> Lora:
        """Raises UNKNOWN_LORA, AMBIGUOUS_ID, NAME_TAKEN, INVALID_FIELD."""
        if change.name is not None:
            names.check(change.name)
        check_weight("weight", change.weight)
        _check_trigger(change.trigger or "")
        async with self._changing:
            lora = self.find(text)
            if change.name not in (None, lora.name):
                self.check_free(change.name)
            return await self._save(
                replace(
                    lora,
                    name=lora.name if change.name is None else change.name,
                    weight=lora.weight if change.weight is None else change.weight,
                    trigger=lora.trigger if change.trigger is None else change.trigger,
                )
            )

    async def delete(self, text: str) -> Lora:
        """Forget it. An upload's file goes too, and first: without a row it would be kept; a linked one stays."""
        async with self._changing:
            lora = self.find(text)
            if lora.place.is_owned:
                await asyncio.to_thread(self._files.delete, lora.place.path)
            await self._database.run(lambda connection: table.delete(connection, lora.id))
            del self._loras[lora.id]
            self._spoilt.pop(lora.id, None)
        _log.info("LoRA removed", extra={"lora": lora.id, "called": lora.name})
        return lora

    # Adding

    async def _add(self, source: Source, wish: Wish, tell: Tell) -> Lora:
        match source:
            case Linked(path):
                return await self._add_file(await asyncio.to_thread(_found_at, path), wish, tell)
            case Remote():
                return await self._add_file(await self._fetched(source, tell), wish, tell)
            case Upload():
                return await self._add_upload(source, wish, tell)

    async def _fetched(self, remote: Remote, tell: Tell) -> _Found:
        listing, fetched = await self._fetch(
            remote.address,
            lambda listing: choosing.choose_all(listing, remote.file),
            lambda doing, done, total: tell(Progress(doing, done, total)),
        )
        name, *_ = choosing.choose_all(listing, remote.file)
        path, called = fetched.paths[name], names.derived(name, remote.address.repository)
        config = await asyncio.to_thread(peft.config_beside, path)
        return _Found(path, f"{listing.source}:{name}", called, config)

    async def _add_upload(self, upload: Upload, wish: Wish, tell: Tell) -> Lora:
        path = await self._files.receive(upload, lambda done: tell(Progress("receiving", done, upload.size_bytes)))
        try:
            found = _Found(path, "upload", names.derived(path.name), upload.adapter_config)
            return await self._add_joined(found, wish, tell) or await self._add_own(found, wish, tell)
        finally:
            await asyncio.shield(asyncio.to_thread(self._files.discard, path))

    async def _add_file(self, found: _Found, wish: Wish, tell: Tell) -> Lora:
        """Where it lies, but for peft's: a copy."""
        if (joined := await self._add_joined(found, wish, tell)) is not None:
            return joined
        place, findings = await self._examine(found.path, found.source, tell)
        return await self._until_done(self._register(_new(place, findings, found.called, wish)))

    async def _add_joined(self, found: _Found, wish: Wish, tell: Tell) -> Lora | None:
        """A copy that has what peft keeps beside the file; None where there is nothing, or the file has it already."""
        if not found.config:
            return None
        await self._examine(found.path, found.source, tell)  # nothing else parses it before
        joined = await asyncio.to_thread(self._files.copy_with, found.path, found.config)
        if joined is None:
            return None
        try:
            return await self._add_own(replace(found, path=joined), wish, tell)
        finally:
            await asyncio.shield(asyncio.to_thread(self._files.discard, joined))

    async def _add_own(self, found: _Found, wish: Wish, tell: Tell) -> Lora:
        """A file that nobody else has."""
        place, findings = await self._examine(found.path, found.source, tell)
        new = _new(replace(place, is_owned=True), findings, found.called, wish)
        return await self._until_done(self._register(new))

    async def _examine(self, path: Path, source: str, tell: Tell) -> tuple[Place, LoraFindings]:
        """Raises what is wrong with it."""
        look = await asyncio.to_thread(files.look, path)
        self._files.check_size(path, look)
        tell(Progress("checking", 0, look.size_bytes))
        async with self._room:
            findings = await self._inspect(path)
        if await asyncio.to_thread(files.look, path) != look:
            raise CraftError("CORRUPT_FILE", f"{path} is being changed", "wait until it is whole, then add it again")
        return Place(path, look, source), findings

    async def _until_done(self, work: Coroutine[Any, Any, Lora]) -> Lora:
        """Rows and memory change together, even when the caller goes away meanwhile."""
        task = asyncio.create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return await asyncio.shield(task)

    async def _register(self, new: Lora, *, may_rename: bool = False) -> Lora:
        async with self._changing:
            here = next((lora for lora in self._loras.values() if lora.sha256 == new.sha256), None)
            if here is None:
                return await self._insert(self._renamed(new) if may_rename else new)
            if await self._is_usable(here):
                return here
            kept = await self._settled(new)  # its file was lost: this one takes its place
            return await self._save(replace(here, place=kept.place, file_name=kept.file_name))

    async def _insert(self, new: Lora) -> Lora:
        self.check_free(new.name)
        taken = {called for lora in self._loras.values() for called in (lora.id, lora.name)}
        lora = await self._settled(replace(new, id=names.new_id(new.sha256, taken)))
        try:
            await self._database.run(lambda connection: table.insert(connection, lora))
        except CraftError:
            if lora.place.is_owned:
                await asyncio.to_thread(self._files.delete, lora.place.path)
            raise
        self._loras[lora.id] = lora
        _log.info(
            "LoRA added", extra={"lora": lora.id, "called": lora.name, "base": lora.base, "source": lora.place.source}
        )
        return lora

    async def _settled(self, new: Lora) -> Lora:
        """An upload gets its lasting name."""
        if not new.place.is_owned:
            return new
        path = await asyncio.to_thread(self._files.publish, new.place.path, new.sha256)
        return replace(new, place=replace(new.place, path=path))

    async def _save(self, lora: Lora) -> Lora:
        await self._database.run(lambda connection: table.update(connection, lora))
        if lora.id in self._loras:  # it may have been removed meanwhile
            self._loras[lora.id] = lora
        self._spoilt.pop(lora.id, None)
        return lora

    async def _is_usable(self, lora: Lora) -> bool:
        try:
            await self.verified(lora.id)
        except CraftError:
            return False
        return True

    def _renamed(self, new: Lora) -> Lora:
        """name, name-2, name-3, ...: the first that is free."""
        taken = {called for lora in self._loras.values() for called in (lora.id, lora.name)}
        tried = (new.name if number == 1 else f"{new.name[:95]}-{number}" for number in itertools.count(1))
        return replace(new, name=next(name for name in tried if name not in taken))

    def check_free(self, name: str) -> None:
        """Raises NAME_TAKEN."""
        for lora in self._loras.values():
            if name in (lora.name, lora.id):
                raise CraftError(
                    "NAME_TAKEN",
                    f"name: {name!r} is the LoRA {lora.id}, {lora.file_name}",
                    "give another name, or remove that one: craft lora rm",
                    field="name",
                )


@dataclass(frozen=True)
class _Found:
    """A file that is to be added: what it would be called, and what peft has beside it."""

    path: Path
    source: str
    called: str
    config: bytes


def _found_at(path: Path) -> _Found:
    """The file itself, or the only one in a folder. Raises INVALID_FIELD, BAD_DATA, CORRUPT_FILE."""
    if not path.is_absolute():
        raise invalid("path", f"{str(path)[:200]!r} is not absolute", "give the whole path")
    path = files.only_file(path) if path.is_dir() else path
    return _Found(path, str(path), names.derived(path.name, path.parent.name), peft.config_beside(path))


def _new(place: Place, findings: LoraFindings, called: str, wish: Wish) -> Lora:
    """Without an id yet."""
    return Lora(
        id="",
        name=wish.name or called,
        file_name=place.path.name,
        weight=1.0 if wish.weight is None else wish.weight,
        trigger=wish.trigger or findings.trigger,
        place=place,
        findings=findings,
        create_time=time.time(),
    )


def _check_wish(wish: Wish) -> None:
    if wish.name:
        names.check(wish.name)
    check_weight("weight", wish.weight)
    _check_trigger(wish.trigger)


def check_weight(field: str, weight: float | None) -> None:
    """Raises INVALID_FIELD."""
    if weight is not None and not (math.isfinite(weight) and abs(weight) <= HEAVIEST):
        raise invalid(field, f"must be a number from {-HEAVIEST:g} to {HEAVIEST:g}, not {weight}")


def _check_trigger(trigger: str) -> None:
    if len(trigger) > _LONGEST_TRIGGER or not trigger.isprintable():
        raise invalid("trigger", f"must be at most {_LONGEST_TRIGGER} printable characters", "shorten it")


def _add_again(lora: Lora) -> str:
    return f"craft lora rm {lora.id}, then craft lora add it again from where it is now"
