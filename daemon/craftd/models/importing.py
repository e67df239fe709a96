"""Models from elsewhere: linked where they lie on this disk, or downloaded from the hub."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from craft_protos.reasons import CraftError, invalid

from craftd.hub.client import HubProcess
from craftd.hub.repository import Address, Fetched, Listing, Missing
from craftd.models import care, checkpoint, choosing, folder, names, table
from craftd.models.model import Model, Progress
from craftd.models.place import Place
from craftd.models.registry import Registry
from craftd.models.verdicts import Verdicts
from craftd.store.database import Database

_log = logging.getLogger("craft.models")
_PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
_LONGEST_INDEX_BYTES = 1 << 20

Tell = Callable[[Progress], None]
Connect = Callable[[], AbstractAsyncContextManager[HubProcess]]


@dataclass(frozen=True)
class Remote:
    """On the hub: a diffusers folder, or one file of a repository."""

    address: Address
    file: str = ""


@dataclass(frozen=True)
class Wish:
    """`name`: empty for one made from the source. `plan_only`: only say what would be downloaded."""

    name: str = ""
    plan_only: bool = False


class Importer:
    """`prefers_half`: whether the device computes in half precision, so that half of a download suffices."""

    def __init__(
        self,
        registry: Registry,
        verdicts: Verdicts,
        database: Database,
        connect: Connect,
        prefers_half: Callable[[], bool],
    ) -> None:
        self._registry = registry
        self._built_in: Model | None = None
        self._verdicts = verdicts
        self._database = database
        self._connect = connect
        self._prefers_half = prefers_half

    async def add(self, path: Path, wish: Wish, tell: Tell) -> Place | None:
        """A diffusers folder or a checkpoint, linked in place; None where it was only planned.

        Raises NAME_TAKEN, INVALID_FIELD, NO_INPUT, UNSAFE_*, CORRUPT_FILE, UNSUPPORTED_MODEL.
        """
        path = await asyncio.to_thread(_existing, path)
        here = next((place for place in await self._registry.places() if place.path == path), None)
        if here is not None:
            return here
        name = wish.name or names.derived(path.name if path.is_dir() else path.stem)
        place = Place(names.check("name", name), path, str(path), is_registered=True)
        await self._registry.check_free(name)
        return await self._register(place, wish, tell)

    async def pull(self, remote: Remote, wish: Wish, tell: Tell) -> Place | None:
        """From the hub, into the Hugging Face cache. Raises as `add`, and what the hub may answer."""
        remote.address.check()
        name = names.check("name", wish.name or names.derived(_called(remote)))
        tell(Progress("asking the model hub"))
        async with self._connect() as hub:
            listing = await hub.list(remote.address)
            source = f"{listing.source}:{remote.file}" if remote.file else listing.source
            here = await self._registered(source, wish.name)
            if here is not None:
                return here
            await self._registry.check_free(name)
            chosen = [remote.file] if remote.file else await self._choose(hub, listing)
            _check_chosen(chosen, listing)
            missing = await hub.missing(listing, chosen)
            if wish.plan_only:
                files = "1 file" if len(chosen) == 1 else f"{len(chosen)} files"
                tell(Progress(f"{source}: {files}", 0, missing.bytes))
                return None
            await self._note(missing)
            fetched = await hub.fetch(listing, chosen, lambda *told: tell(Progress(*told)))
        _log.info("pulled", extra={"source": source, "bytes": fetched.downloaded_bytes})
        place = _place(name, source, remote, fetched)
        try:
            return await self._register(place, wish, tell)
        except CraftError:
            await self.forget_files(place)
            raise

    async def forget_files(self, place: Place) -> int:
        """Delete what craft downloaded for it and nothing else needs; how many bytes that gave back."""
        downloads = await self._database.run(table.downloads)
        others = [one for one in await self._registry.places() if one.name != place.name]
        kept = {path for one in others for path in one.own_files}
        freed = await asyncio.to_thread(care.discard, place.own_files, downloads, kept)
        await self._database.run(lambda connection: table.forget_downloads(connection, freed.blobs))
        return freed.bytes

    async def _register(self, place: Place, wish: Wish, tell: Tell) -> Place | None:
        tell(Progress("checking"))
        model = await self.read(place)
        model.check_usable()
        if wish.plan_only:
            tell(Progress(f"{place.path}: nothing to download; {model.pipeline}", 0, 0))
            return None
        await self._registry.add(place)
        _log.info("model added", extra={"model": place.name, "source": place.source})
        return place

    async def read(self, place: Place) -> Model:
        """Strangers' files are checked before anything is read; what came with craft is trusted, and read once."""
        if place.built_in:
            if self._built_in is None:
                self._built_in = await asyncio.to_thread(_read, place)
            return self._built_in
        verdict = await self._verdicts.of(place.path)
        if verdict.reason:
            why = CraftError(verdict.reason, verdict.message, verdict.hint)
            return folder.refused(place.path, why, name=place.name)
        return await asyncio.to_thread(_read, place)

    async def _note(self, missing: Missing) -> None:
        """Before the first byte: what comes is craft's to delete, whatever happens meanwhile."""
        await self._database.run(lambda connection: table.note_downloads(connection, missing.blobs))

    async def _registered(self, source: str, name: str) -> Place | None:
        """The same again is the one that is there already."""
        places = await self._registry.places()
        return next((one for one in places if one.source == source and name in ("", one.name)), None)

    async def _choose(self, hub: HubProcess, listing: Listing) -> list[str]:
        file = listing.file(choosing.INDEX)
        if file is None:
            raise _no_folder(listing)
        if file.size_bytes > _LONGEST_INDEX_BYTES:
            raise CraftError("CORRUPT_FILE", f"{listing.source}: {choosing.INDEX} is too long to be one")
        await self._note(await hub.missing(listing, [choosing.INDEX]))
        fetched = await hub.fetch(listing, [choosing.INDEX], lambda *_: None)
        index = await asyncio.to_thread(_index, fetched.paths[choosing.INDEX])
        _, family = folder.pipeline_of(index)
        known = [one.path for one in listing.files]
        return choosing.of_repository(known, index, family, prefers_half=self._prefers_half())


def _read(place: Place) -> Model:
    if place.path.is_dir():
        return folder.read(place.path, name=place.name, built_in=place.built_in, only=place.files)
    return checkpoint.read(place.path, name=place.name)


def _existing(path: Path) -> Path:
    """Raises INVALID_FIELD, NO_INPUT."""
    if not path.is_absolute():
        raise invalid("path", f"{str(path)[:200]!r} is not absolute", "give the whole path")
    if not path.exists():
        raise CraftError("NO_INPUT", f"path: {path} is not there", "check the path", field="path")
    return Path(*path.parts)


def _called(remote: Remote) -> str:
    return PurePosixPath(remote.file).stem if remote.file else remote.address.repository.rpartition("/")[2]


def _place(name: str, source: str, remote: Remote, fetched: Fetched) -> Place:
    if remote.file:
        return Place(name, fetched.paths[remote.file], source, (), is_registered=True)
    return Place(name, fetched.folder, source, tuple(fetched.paths), is_registered=True)


def _index(path: Path) -> dict[str, object]:
    try:
        index = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as exc:
        raise CraftError("CORRUPT_FILE", f"{choosing.INDEX}: no JSON ({exc})", "use another model") from exc
    if not isinstance(index, dict):
        raise CraftError("CORRUPT_FILE", f"{choosing.INDEX}: a JSON object was expected", "use another model")
    return index


def _check_chosen(chosen: list[str], listing: Listing) -> None:
    for path in chosen:
        if path.lower().endswith(_PICKLES):
            raise CraftError(
                "UNSAFE_FORMAT",
                f"{listing.source}: {path} is a pickle file, which could run code",
                "use a .safetensors file of it",
            )


def _no_folder(listing: Listing) -> CraftError:
    names_here = [file.path for file in listing.files if "/" not in file.path]
    single = [name for name in names_here if name.endswith(".safetensors")]
    repository = listing.address.repository
    if single:
        hint = f"a checkpoint of one file is pulled by its name: craft models pull {repository}:{single[0]}"
    else:
        hint = "craft draws with diffusers folders and .safetensors checkpoints"
    return CraftError("UNSUPPORTED_MODEL", f"{listing.source} has no {choosing.INDEX}: it is no diffusers folder", hint)
