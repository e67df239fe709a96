"""LoRAs: added, listed, found, edited, removed."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from craft_protos.lora import LoraRef
from craft_protos.reasons import CraftError

from craftd.hub.client import fetch_files
from craftd.hub.repository import Address, Fetched, Listing
from craftd.keys.caller import Caller
from craftd.loras import choosing, files, names, owning, peft, table
from craftd.loras.files import LoraFiles
from craftd.loras.lora import Change, Linked, Look, Lora, Place, Progress, Remote, Source, Upload, Wish
from craftd.loras.order import Found, Order, Tell, check_trigger, check_weight, check_wish, found_at, new_lora
from craftd.loras.owning import LoraQuota
from craftd.store.database import Database
from craftd.workers.inspector import InspectLora, LoraFindings

_log = logging.getLogger("craft.loras")
_MOST_AT_ONCE = 2

Fetch = Callable[
    [Address, Callable[[Listing], Sequence[str]], Callable[[str, int, int], None]], Awaitable[tuple[Listing, Fetched]]
]


class LoraService:
    """Memory is the truth while the daemon runs; rows are written before it changes."""

    def __init__(
        self,
        database: Database,
        lora_files: LoraFiles,
        inspect: InspectLora,
        fetch: Fetch = fetch_files,
        *,
        quota: LoraQuota,
    ) -> None:
        self._database = database
        self._quota = quota
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

    def list(self, caller: Caller) -> list[Lora]:
        """Those that the caller sees, by name; of one name their own first."""
        seen = itertools.chain(*owning.circles(self._loras.values(), caller))
        return sorted(seen, key=lambda lora: lora.name)

    def embeddings(self, owner: str) -> Sequence[Lora]:
        """Those that work where a prompt of the owner's has their name: their own, or shared."""
        found = dict[str, Lora]()
        for lora in self._near(owner):
            if lora.is_embedding:
                found.setdefault(lora.name.lower(), lora)
        return [*found.values()]

    def names_for(self, caller: Caller, base: str | None = None) -> Sequence[str]:
        """Each once; with `base`, only of those of that architecture."""
        return [*dict.fromkeys(one.name for one in self.list(caller) if base is None or one.base == base)]

    def find(self, text: str, caller: Caller) -> Lora:
        """By id, name, the beginning of a hash, or file name; what the caller does not see is unknown.

        Raises UNKNOWN_LORA, AMBIGUOUS_ID.
        """
        return names.find(text, owning.circles(self._loras.values(), caller))

    def of_job(self, use: LoraRef, owner: str) -> Lora:
        """The one that an accepted job of the owner's is drawn with. Raises UNKNOWN_LORA where it is gone."""
        lora = self._loras.get(use.lora)
        if lora is not None and lora.sha256 == use.sha256:
            return lora
        return names.find(use.sha256, [self._near(owner)])

    def check_room(self, caller: Caller, size_bytes: int = 0) -> None:
        """Whether the caller may have one more. Raises QUOTA_EXCEEDED."""
        self._quota.check(caller, self._loras.values(), size_bytes)

    def is_shared(self, sha256: str) -> bool:
        """Whether every key may know that there is such a LoRA."""
        return any(lora.sha256 == sha256 and lora.is_shared for lora in self._loras.values())

    async def verified(self, lora_id: str) -> Lora:
        """The LoRA, its file being what it was. Raises UNKNOWN_LORA, NO_INPUT, CORRUPT_FILE."""
        lora = self._loras.get(lora_id)
        if lora is None:
            raise names.unknown(lora_id)
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

    async def add(self, source: Source, wish: Wish, caller: Caller) -> AsyncGenerator[Progress | Lora, None]:
        """How far it is, then the LoRA: an admin's is shared. The same file again is the LoRA that it is already.

        Raises NAME_TAKEN, INVALID_FIELD, NO_INPUT, UNSAFE_*, CORRUPT_FILE, UNSUPPORTED_LORA, NOT_FINITE, DISK_FULL,
        QUOTA_EXCEEDED, and what the hub may answer.
        """
        check_wish(wish)
        events: asyncio.Queue[Progress | None] = asyncio.Queue()
        order = Order(wish, caller, events.put_nowait)
        adding = asyncio.create_task(self._add(source, order), name="add a LoRA")
        adding.add_done_callback(lambda _: events.put_nowait(None))
        try:
            while (event := await events.get()) is not None:
                yield event
            yield await adding
        finally:
            adding.cancel()
            await asyncio.wait([adding])

    async def adopt(self, source: Path, wish: Wish, caller: Caller, preview: bytes = b"") -> Lora:
        """A file that craft has made for the caller, with a number behind its name where that is taken meanwhile.

        The same file again is the LoRA that it is already, and no quota is asked: the work is done.
        Raises NOT_FINITE, CORRUPT_FILE, DISK_FULL, ...
        """
        path = await asyncio.to_thread(self._files.copy_in, source, f"{wish.name}.safetensors")
        try:
            order = Order(wish, caller, lambda _: None)
            place, findings = await self._examine(path, "trained here", order.tell)
            new = new_lora(replace(place, is_owned=True), findings, wish.name, order)
            lora = await self._until_done(self._register(new, caller, is_made_here=True))
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

    async def previewed(self) -> set[str]:
        """Ids of those that have a preview."""
        return await self._database.look(table.previewed)

    async def update(self, text: str, change: Change, caller: Caller) -> Lora:
        """Raises UNKNOWN_LORA, AMBIGUOUS_ID, NAME_TAKEN, INVALID_FIELD, NOT_ALLOWED."""
        if change.name is not None:
            names.check(change.name)
        check_weight("weight", change.weight)
        check_trigger(change.trigger or "")
        async with self._changing:
            lora = self.find(text, caller)
            owning.require_changeable(lora, caller)
            if change.is_shared is not None:
                caller.require_admin("sharing a LoRA")
            changed = replace(
                lora,
                name=lora.name if change.name is None else change.name,
                weight=lora.weight if change.weight is None else change.weight,
                trigger=lora.trigger if change.trigger is None else change.trigger,
                is_shared=lora.is_shared if change.is_shared is None else change.is_shared,
            )
            if (changed.name, changed.is_shared) != (lora.name, lora.is_shared):
                self._check_free(changed)
            return await self._save(changed)

    async def delete(self, text: str, caller: Caller) -> Lora:
        """Forget it. An upload's file goes too, and first: without a row it would be kept; a linked one stays.

        Raises UNKNOWN_LORA, AMBIGUOUS_ID, NOT_ALLOWED.
        """
        async with self._changing:
            lora = self.find(text, caller)
            owning.require_changeable(lora, caller)
            await self._delete(lora)
        return lora

    async def forget(self, owner: str) -> None:
        """Delete all of an owner's, shared ones too."""
        async with self._changing:
            for lora in [one for one in self._loras.values() if one.owner == owner]:
                await self._delete(lora)

    async def _delete(self, lora: Lora) -> None:
        others = (one for one in self._loras.values() if one.id != lora.id)
        if lora.place.is_owned and all(one.place.path != lora.place.path for one in others):
            await asyncio.to_thread(self._files.delete, lora.place.path)
        await self._database.run(lambda connection: table.delete(connection, lora.id))
        del self._loras[lora.id]
        self._spoilt.pop(lora.id, None)
        _log.info("LoRA removed", extra={"lora": lora.id, "called": lora.name})

    # Adding

    async def _add(self, source: Source, order: Order) -> Lora:
        match source:
            case Linked(path):
                return await self._add_file(await asyncio.to_thread(found_at, path), order)
            case Remote():
                found, trigger = await self._fetched(source, order.tell)
                wish = replace(order.wish, trigger=order.wish.trigger or trigger)
                return await self._add_file(found, replace(order, wish=wish))
            case Upload():
                self.check_room(order.caller, source.size_bytes)
                return await self._add_upload(source, order)

    async def _fetched(self, remote: Remote, tell: Tell) -> tuple[Found, str]:
        """With the trigger words that its page names, if it has one."""
        listing, fetched = await self._fetch(
            remote.address,
            lambda listing: choosing.choose_all(listing, remote.file),
            lambda doing, done, total: tell(Progress(doing, done, total)),
        )
        name, *_ = choosing.choose_all(listing, remote.file)
        path, called = fetched.paths[name], names.derived(name, remote.address.repository)
        config = await asyncio.to_thread(peft.config_beside, path)
        return Found(path, f"{listing.source}:{name}", called, config), listing.trigger

    async def _add_upload(self, upload: Upload, order: Order) -> Lora:
        path = await self._files.receive(
            upload, lambda done: order.tell(Progress("receiving", done, upload.size_bytes))
        )
        try:
            found = Found(path, "upload", names.derived(path.name), upload.adapter_config)
            return await self._add_joined(found, order) or await self._add_own(found, order)
        finally:
            await asyncio.shield(asyncio.to_thread(self._files.discard, path))

    async def _add_file(self, found: Found, order: Order) -> Lora:
        """Where it lies, but for peft's: a copy."""
        if (joined := await self._add_joined(found, order)) is not None:
            return joined
        place, findings = await self._examine(found.path, found.source, order.tell)
        return await self._until_done(self._register(new_lora(place, findings, found.called, order), order.caller))

    async def _add_joined(self, found: Found, order: Order) -> Lora | None:
        """A copy that has what peft keeps beside the file; None where there is nothing, or the file has it already."""
        if not found.config:
            return None
        await self._examine(found.path, found.source, order.tell)  # nothing else parses it before
        joined = await asyncio.to_thread(self._files.copy_with, found.path, found.config)
        if joined is None:
            return None
        try:
            return await self._add_own(replace(found, path=joined), order)
        finally:
            await asyncio.shield(asyncio.to_thread(self._files.discard, joined))

    async def _add_own(self, found: Found, order: Order) -> Lora:
        """A file that nobody else has."""
        place, findings = await self._examine(found.path, found.source, order.tell)
        new = new_lora(replace(place, is_owned=True), findings, found.called, order)
        return await self._until_done(self._register(new, order.caller))

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

    async def _register(self, new: Lora, caller: Caller, *, is_made_here: bool = False) -> Lora:
        async with self._changing:
            here = next((lora for lora in self._near(new.owner) if lora.sha256 == new.sha256), None)
            if here is None and is_made_here:
                return await self._insert(self._renamed(new))
            if here is None:
                self.check_room(caller, new.size_bytes)
                return await self._insert(new)
            if await self._is_usable(here):
                return here
            kept = await self._settled(new)  # its file was lost: this one takes its place
            return await self._save(replace(here, place=kept.place, file_name=kept.file_name))

    async def _insert(self, new: Lora) -> Lora:
        self.check_free(new.name, new.owner)
        taken = {called for lora in self._loras.values() for called in (lora.id, lora.name)}
        seed = owning.id_seed(new.sha256, new.owner, is_shared=new.is_shared)
        lora = await self._settled(replace(new, id=names.new_id(seed, taken)))
        try:
            await self._database.run(lambda connection: table.insert(connection, lora))
        except CraftError:
            if lora.place.is_owned and all(one.place.path != lora.place.path for one in self._loras.values()):
                await asyncio.to_thread(self._files.delete, lora.place.path)
            raise
        self._loras[lora.id] = lora
        _log.info(
            "LoRA added", extra={"lora": lora.id, "called": lora.name, "base": lora.base, "source": lora.place.source}
        )
        return lora

    async def _settled(self, new: Lora) -> Lora:
        """An upload gets its lasting name; the file that another owner sent too is kept once."""
        if not new.place.is_owned:
            return new
        for twin in [one for one in self._loras.values() if one.sha256 == new.sha256 and one.place.is_owned]:
            if await self._is_usable(twin):
                return replace(new, place=replace(self._loras[twin.id].place, source=new.place.source))
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
        taken = {called for lora in self._near(new.owner) for called in (lora.id, lora.name)}
        tried = (new.name if number == 1 else f"{new.name[:95]}-{number}" for number in itertools.count(1))
        return replace(new, name=next(name for name in tried if name not in taken))

    def check_free(self, name: str, owner: str) -> None:
        """Whether no LoRA that is the owner's or shared is called so. Raises NAME_TAKEN."""
        names.require_free(name, self._near(owner))

    def _check_free(self, new: Lora) -> None:
        """The same of one that is to be changed; a file is shared once. Raises NAME_TAKEN."""
        others = [lora for lora in self._near(new.owner) if lora.id != new.id]
        names.require_free(new.name, others)
        twin = next((one for one in others if one.sha256 == new.sha256), None)
        if new.is_shared and twin is not None:
            message = f"the LoRA {new.name} has the same file as {twin.name}, which is shared"
            raise CraftError("NAME_TAKEN", message, f"use that one, or take it back: craft lora unshare {twin.id}")

    def _near(self, owner: str) -> Sequence[Lora]:
        return owning.near(self._loras.values(), owner)


def _add_again(lora: Lora) -> str:
    return f"craft lora rm {lora.id}, then craft lora add it again from where it is now"
