"""Models from elsewhere: linked where they lie on this disk, or downloaded from the hub."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path

from craft_protos.reasons import CraftError, invalid

from craftd import gguf, safetensors
from craftd.architectures import detect, parts
from craftd.architectures.architecture import Part as PartOfPipeline
from craftd.hub.client import HubProcess
from craftd.hub.repository import Address, Listing, Missing
from craftd.models import (
    cache_pruning,
    checkpoint,
    choosing,
    folder,
    names,
    precision,
    prediction,
    remotes,
    schedulers,
    table,
)
from craftd.models.catalogue import Entry
from craftd.models.finding import Asked, PartFinder
from craftd.models.inspection_cache import InspectionCache
from craftd.models.model import Model, ModelSource, Progress, PullPlan
from craftd.models.part import Given, Part
from craftd.models.registry import Registry
from craftd.models.remotes import Remote
from craftd.models.wish import Wish
from craftd.store.database import Database
from craftd.workers.inspector import Identify, Identity

_log = logging.getLogger("craft.models")
_LONGEST_INDEX_BYTES = 1 << 20
_TOKENIZER = "tokenizer/"

Imported = ModelSource | Part | PullPlan | None
Tell = Callable[[Progress], None]
Connect = Callable[[], AbstractAsyncContextManager[HubProcess]]


class Importer:
    """`prefers_half`: whether the device computes in half precision, so that half of a download suffices."""

    def __init__(
        self,
        registry: Registry,
        inspections: InspectionCache,
        database: Database,
        connect: Connect,
        prefers_half: Callable[[], bool],
        *,
        finder: PartFinder,
        identify: Identify,
        schedulers_dir: Path,
    ) -> None:
        """`identify`: upscalers, too."""
        self._identify = identify
        self._registry = registry
        self._built_in: Model | None = None
        self._inspections = inspections
        self._database = database
        self._connect = connect
        self._prefers_half = prefers_half
        self._finder = finder
        self._schedulers_dir = schedulers_dir

    async def add(self, path: Path, wish: Wish, tell: Tell) -> Imported:
        """A diffusers folder, a checkpoint, a network or a part, linked in place; None where it was only planned.

        Raises NAME_TAKEN, INVALID_FIELD, NO_INPUT, UNSAFE_*, CORRUPT_FILE, UNSUPPORTED_MODEL.
        """
        path = await asyncio.to_thread(_existing, path)
        here = next((place for place in await self._registry.places() if place.path == path), None)
        if here is not None:
            return wish.met_by(here)
        part = await self._part_of(path)
        if part:
            return await self._register_part(path, part, wish, tell)
        name = wish.name or names.derived(path.name if path.is_dir() else path.stem)
        place = wish.said_of(ModelSource(names.check("name", name), path, str(path), is_registered=True))
        await self._registry.check_free(name)
        return await self._register(place, wish, tell)

    async def pull(self, remote: Remote, wish: Wish, tell: Tell) -> Imported:
        """From the hub, into the Hugging Face cache. Raises as `add`, and what the hub may answer."""
        named, entry = remotes.by_short_name(remote)
        try:
            return await self._pull(named, entry, wish, tell)
        except CraftError as exc:
            if exc.reason != "HUB_UNREACHABLE" or entry is None or not wish.plan_only:
                raise
            free = await asyncio.to_thread(remotes.free_bytes)
            return PullPlan(entry.repository, 0, entry.download_bytes, free, entry, unasked=exc.message)

    async def _pull(self, remote: Remote, entry: Entry | None, wish: Wish, tell: Tell) -> Imported:
        remote.address.check()
        prediction.check(wish.prediction)
        precision.check(wish.precision)
        if wish.name:
            names.check("name", wish.name)
        tell(Progress("asking Civitai" if remote.address.is_civitai else "asking the model hub"))
        async with self._connect() as hub:
            listing = await remotes.listed(hub, remote.address)
            remote = remotes.settled(remote, listing)
            name = names.check("name", wish.name or (entry.name if entry else names.derived(remotes.called(remote))))
            source = f"{listing.source}:{remote.file}" if remote.file else listing.source
            here = await self._registered(source, wish.name)
            if here is not None:
                return wish.met_by(here)
            await self._registry.check_free(name)
            chosen = [remote.file] if remote.file else await self._choose(hub, listing, wish)
            remotes.check_chosen(chosen, listing)
            missing = await hub.missing(listing, chosen)
            if wish.plan_only:
                free = await asyncio.to_thread(remotes.free_bytes)
                return PullPlan(source, len(chosen), missing.bytes, free, entry)
            await self._note(missing)
            fetched = await hub.fetch(listing, chosen, lambda *told: tell(Progress(*told)))
        _log.info("pulled", extra={"source": source, "bytes": fetched.downloaded_bytes})
        place = wish.said_of(remotes.place_of(name, source, remote, fetched))
        try:
            return await self._register_pulled(place, wish, tell)
        except CraftError as exc:
            if not isinstance(exc, detect.LacksParts):  # what it lacks may come later, and it need not come again
                await self.forget_files(place)
            raise

    async def forget_files(self, place: ModelSource | Part) -> int:
        """Delete what craft downloaded for it and nothing else needs; how many bytes that gave back."""
        downloads = await self._database.run(table.downloads)
        others: list[ModelSource | Part] = [*await self._registry.places(), *self._registry.parts]

        def discard() -> cache_pruning.Freed:
            kept = {path for one in others if one.name != place.name for path in one.own_files}
            return cache_pruning.discard(place.own_files, downloads, kept)

        freed = await asyncio.to_thread(discard)
        await self._database.run(lambda connection: table.forget_downloads(connection, freed.blobs))
        return freed.bytes

    async def use_parts(self, place: ModelSource, asked: Asked, *, own_vae: bool) -> ModelSource:
        """A model with those parts in the place of what it had. Raises as PartFinder.given, and as `add`."""
        used = {component: part for component, part in place.parts if not (own_vae and component == "vae")}
        given = await self._finder.given(place.path, asked, await self._places_of(place)) if asked else []
        kept = [one for one in self._registry.given(place) if one.component in used]
        together = {one.component: one for one in (*kept, *given)}
        model = await self._read(place, list(together.values()))
        model.check_usable()
        for one in given:
            await self._registry.add_part(one.part)
        return await self._registry.use_parts(place, {one.component: one.part.name for one in together.values()})

    async def _places_of(self, place: ModelSource) -> Sequence[PartOfPipeline]:
        """What the pipeline of a folder may take from files of their own."""
        if not place.path.is_dir():
            return ()
        model = await self._read(place, [])
        layouts = model.architecture.checkpoints
        return (*layouts[0].parts, *layouts[0].optional) if layouts else ()

    async def _part_of(self, path: Path) -> str:
        """The kind of part that a path is; "" where it is none, or where it is for others to say what is wrong."""
        if (await self._inspections.of(path)).reason:
            return ""
        kind = await asyncio.to_thread(_kind_of, path)
        if kind or not await asyncio.to_thread(_is_unknown, path):
            return kind
        (found,) = await self._identify([path])
        if found.why.reason not in ("", "UNSUPPORTED_MODEL"):
            raise CraftError(found.why.reason, found.why.message, found.why.hint)
        return found.kind

    async def _register_part(self, path: Path, kind: str, wish: Wish, tell: Tell) -> Part | None:
        if wish.parts or wish.prediction or wish.precision:
            raise invalid("path", f"{path.name} is {parts.shown(kind)}, a part itself", "add it with its name alone")
        if wish.name:
            await self._registry.check_free(names.check("name", wish.name))
        if wish.plan_only:
            tell(Progress(f"{path}: nothing to download; {parts.shown(kind)}", 0, 0))
            return None
        tell(Progress("hashing"))
        part = await self._finder.part(path, kind, name=wish.name)
        await self._registry.add_part(part)
        _log.info("part added", extra={"part": part.name, "source": part.source})
        return part

    async def _register_pulled(self, place: ModelSource, wish: Wish, tell: Tell) -> Imported:
        kind = await self._part_of(place.path)
        if not kind:
            return await self._register(place, wish, tell)
        part = await self._finder.part(
            place.path, kind, name=place.name, source=place.source, is_downloaded=place.files is not None
        )
        if self._registry.part(part.name) is None:
            part = await self._with_vocabulary(part, tell)
        await self._registry.add_part(part)
        return part

    async def _with_vocabulary(self, part: Part, tell: Tell) -> Part:
        """With the tokenizer that its file lacks; without one, where the hub does not have it, it is registered too."""
        kind = parts.by_id(part.kind)
        if part.tokenizer is not None or kind is None or not kind.vocabulary_repository:
            return part
        try:
            return replace(part, tokenizer=await self._tokenizer(Address(kind.vocabulary_repository), tell))
        except CraftError as exc:
            _log.warning("a tokenizer was not pulled", extra={"part": part.name, "why": exc.message})
            return part

    async def _tokenizer(self, address: Address, tell: Tell) -> Path:
        """The folder of that name in a repository. Raises what the hub may answer, and UNKNOWN_REPOSITORY."""
        async with self._connect() as hub:
            listing = await hub.list(address)
            inside = [one.path.removeprefix(_TOKENIZER) for one in listing.files if one.path.startswith(_TOKENIZER)]
            chosen = [_TOKENIZER + name for name in choosing.of_part([one for one in inside if "/" not in one], "")]
            if not chosen:
                raise CraftError("UNKNOWN_REPOSITORY", f"{listing.source} has no folder {_TOKENIZER}")
            await self._note(await hub.missing(listing, chosen))
            fetched = await hub.fetch(listing, chosen, lambda *told: tell(Progress(*told)))
        return fetched.folder / _TOKENIZER.rstrip("/")

    async def _register(self, place: ModelSource, wish: Wish, tell: Tell) -> ModelSource | None:
        tell(Progress("checking"))
        given = await self._given(place, wish)
        model = await self._read(place, given)
        model.check_usable()
        if wish.plan_only:
            used = "".join(f"; {one.part.shown}: {one.part.path}" for one in given)
            tell(Progress(f"{place.path}: nothing to download; {model.pipeline}{used}", 0, 0))
            return None
        for one in given:
            await self._registry.add_part(one.part)
        place = replace(place, parts=tuple((one.component, one.part.name) for one in given))
        await self._registry.add(place)
        _log.info("model added", extra={"model": place.name, "source": place.source})
        return place

    async def planned(self, path: Path, near: Sequence[Identity]) -> list[Given]:
        """The parts that a file would be added with. Raises as `add`."""
        place = ModelSource(names.derived(path.stem), path, str(path))
        given = await self._given(place, Wish(near=tuple(near)))
        (await self._read(place, given)).check_usable()
        return given

    async def _given(self, place: ModelSource, wish: Wish) -> list[Given]:
        """Its parts, where it has a place for any, and where nothing is wrong with the file itself."""
        if (await self._inspections.of(place.path)).reason or (place.path.is_dir() and not wish.parts):
            return []
        try:
            return await self._finder.given(place.path, wish.parts, await self._places_of(place), wish.near)
        except CraftError as exc:
            if exc.reason == "UNSUPPORTED_MODEL" and not isinstance(exc, detect.LacksParts):
                return []  # reading it says so
            raise

    async def read(self, place: ModelSource) -> Model:
        """Strangers' files are checked before anything is read; what came with craft is trusted, and read once."""
        if place.built_in:
            if self._built_in is None:
                self._built_in = await asyncio.to_thread(_read, place)
            return self._built_in
        try:
            return await self._read(place, self._registry.given(place))
        except CraftError as exc:
            return folder.refused(place.path, exc, name=place.name)

    async def _read(self, place: ModelSource, given: Sequence[Given]) -> Model:
        """Raises UNSUPPORTED_MODEL and what is wrong with a part's folder or file."""
        looked_at = [place.path, *(path for one in given for path in (one.part.path, one.part.tokenizer) if path)]
        for path in looked_at:
            verdict = await self._inspections.of(path)
            if verdict.reason:
                why = CraftError(verdict.reason, verdict.message, verdict.hint)
                return folder.refused(place.path, why, name=place.name)
        return await asyncio.to_thread(_read_as_said, place, given, self._schedulers_dir)

    async def check_prediction(self, place: ModelSource) -> None:
        """Raises INVALID_FIELD where what the user says of it cannot be."""
        model = await self.read(place)
        if place.prediction and model.refused_why == schedulers.unsayable(place.name).message:
            raise schedulers.unsayable(place.name)

    async def _note(self, missing: Missing) -> None:
        """Before the first byte: what comes is craft's to delete, whatever happens meanwhile."""
        await self._database.run(lambda connection: table.note_downloads(connection, missing.blobs))

    async def _registered(self, source: str, name: str) -> ModelSource | None:
        """The same again is the one that is there already."""
        places = await self._registry.places()
        return next((one for one in places if one.source == source and name in ("", one.name)), None)

    async def _choose(self, hub: HubProcess, listing: Listing, wish: Wish) -> list[str]:
        file = remotes.index_in(listing) or remotes.configuration_of(listing)
        if file.size_bytes > _LONGEST_INDEX_BYTES:
            raise CraftError("CORRUPT_FILE", f"{listing.source}: {file.path} is too long to be one")
        await self._note(await hub.missing(listing, [file.path]))
        fetched = await hub.fetch(listing, [file.path], lambda *_: None)
        index = await asyncio.to_thread(remotes.index_of, fetched.paths[file.path])
        if remotes.index_in(listing) is None:
            return remotes.of_control(listing, index)
        known = [one.path for one in listing.files]
        architecture = detect.of_pipeline(folder.pipeline_of(index), None)  # its other files are not here yet
        suffices = precision.suffices_half(precision.check(wish.precision))
        half = self._prefers_half() if suffices is None else suffices
        return [file.path, *choosing.of_repository(known, index, architecture, prefers_half=half)]


def _read_as_said(place: ModelSource, given: Sequence[Given], schedulers_dir: Path) -> Model:
    """With the scheduler of what it predicts, by all the evidence."""
    model = _read(place, given)
    try:
        return model if model.refused else schedulers.configured(model, place.prediction, schedulers_dir)
    except CraftError as exc:
        return folder.refused(place.path, exc, name=place.name)


def _read(place: ModelSource, given: Sequence[Given] = ()) -> Model:
    if place.path.is_dir():
        return folder.read(place.path, name=place.name, built_in=place.built_in, only=place.files, given=given)
    return checkpoint.read(place.path, name=place.name, said=place.prediction, given=given)


def _kind_of(path: Path) -> str:
    """Of a file, or of a folder as transformers and diffusers save a component, that has been checked."""
    if path.is_dir() and folder.is_model(path):
        return ""
    files = _weights_in(path) if path.is_dir() else [path]
    if not files:
        return ""
    header = safetensors.joined(map(gguf.header, files))
    found = detect.of_part(header)
    if found is None and path.is_dir():
        detect.check_known(header, path.name)
    return found.kind.id if found is not None else ""


def _weights_in(path: Path) -> list[Path]:
    """Of one precision."""
    names = [file.name for file in sorted(path.iterdir()) if file.is_file()]
    return [path / name for name in choosing.of_part(names, str(path)) if name.endswith(".safetensors")]


def _is_unknown(path: Path) -> bool:
    """Says whether it is a file, and of no architecture that draws."""
    try:
        if not path.is_dir():
            detect.of_file(gguf.header(path), path.name)
    except CraftError as exc:
        return exc.reason == "UNSUPPORTED_MODEL"
    return False


def _existing(path: Path) -> Path:
    """Raises INVALID_FIELD, NO_INPUT."""
    if not path.is_absolute():
        raise invalid("path", f"{str(path)[:200]!r} is not absolute", "give the whole path")
    if not path.exists():
        raise CraftError("NO_INPUT", f"path: {path} is not there", "check the path", field="path")
    return Path(*path.parts)
