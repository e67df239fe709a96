"""Models: listed, shown, imported, named, loaded, unloaded, removed."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path

from craft_protos.generate import LANCZOS
from craft_protos.reasons import CraftError, invalid

from craftd.models import control, precision, prediction, upscaler
from craftd.models import registry as registries
from craftd.models.finding import Asked
from craftd.models.folders import FolderEntry, FolderImporter, Loras
from craftd.models.fresh import Fresh
from craftd.models.hashes import FileHashes
from craftd.models.importing import Imported, Importer
from craftd.models.model import Manifest, Model, ModelSource, ModelView, Progress, PullPlan
from craftd.models.part import Part, PartView
from craftd.models.registry import Registry
from craftd.models.remotes import Remote
from craftd.models.wish import Wish
from craftd.workers.pool import WorkerPool

_HASH = re.compile(r"[0-9a-f]{8,64}")  # or the beginning of one

Event = Progress | ModelView | PartView | PullPlan


class ModelService:
    def __init__(
        self, registry: Registry, importer: Importer, folders: FolderImporter, hashes: FileHashes, pool: WorkerPool
    ) -> None:
        self._registry = registry
        self._importer = importer
        self._folders = folders
        self._hashes = hashes
        self._pool = pool
        self._models = Fresh(self._find)
        self._manifests = Fresh(self._manifest)

    async def open(self) -> None:
        """Once, before anything else."""
        await self._registry.open()

    async def list(self) -> list[ModelView]:
        models = await asyncio.gather(*(self._read(place) for place in await self._registry.places()))
        return [await self._view(model) for model in models]

    async def parts(self) -> tuple[PartView, ...]:
        """Text encoders and VAEs in files of their own, and which models use them."""
        return await asyncio.to_thread(lambda: tuple(map(self._part_view, self._registry.parts)))

    @property
    def controls(self) -> tuple[Part, ...]:
        """Control models, by name."""
        return tuple(part for part in self._registry.parts if part.is_control)

    async def held_beside(self, names: Collection[str]) -> Sequence[Model]:
        """Control models of these names, as a worker holds them."""
        return await asyncio.to_thread(lambda: [control.of_part(one) for one in self.controls if one.name in names])

    async def control(self, name: str) -> Manifest:
        """A control model's files, as they are at this moment. Raises UNSUPPORTED_MODEL, CORRUPT_FILE."""
        part = self._registry.part(name)
        if part is None:
            raise CraftError("UNSUPPORTED_MODEL", f"the control model {name} is registered no more", "add it again")
        return await self._hashes.control(part)

    @property
    def upscalers(self) -> tuple[Part, ...]:
        """By name, without Lanczos."""
        return tuple(part for part in self._registry.parts if part.upscaling is not None)

    async def upscaler(self, name: str) -> Model:
        """By name; "": the only one that was registered, else craft's own.

        Raises UNKNOWN_MODEL, UNSUPPORTED_MODEL, CORRUPT_FILE.
        """
        known = ", ".join([LANCZOS, *(part.name for part in self.upscalers)])
        try:
            found = await self.usable(name or self.usual_upscaler)
        except CraftError as exc:
            if exc.reason != "UNKNOWN_MODEL":
                raise
            raise CraftError(exc.reason, f"no upscaler is called {name[:100]!r}", f"upscalers: {known}") from exc
        if found.upscaling is None:
            message = f"{found.name} is a model that draws, and no upscaler"
            raise CraftError("UNSUPPORTED_MODEL", message, f"upscalers: {known}")
        return found

    @property
    def usual_upscaler(self) -> str:
        """The name of the one that enlarges where none is named."""
        added = [part.name for part in self.upscalers if not part.built_in]
        own = [part.name for part in self.upscalers if part.built_in]
        return added[0] if len(added) == 1 else (own or [LANCZOS])[0]

    async def get(self, name: str) -> ModelView:
        """By name, or by the hash of its weights. With its own hash, which takes a while for a model that is new.

        Raises UNKNOWN_MODEL.
        """
        model = await self._named_or_hashed(name)
        view = await self._view(model)
        return (
            view if view.sha256 or model.refused else replace(view, sha256=(await self._hashes.manifest(model)).sha256)
        )

    async def usable(self, name: str) -> Model:
        """A model that can be drawn with. Raises UNKNOWN_MODEL, UNSAFE_FORMAT, UNSAFE_PATH, CORRUPT_FILE, ..."""
        model = await self._models.get(name)
        model.check_usable()
        return model

    async def manifest(self, name: str) -> Manifest:
        """Every file with its hash. Raises as `usable`."""
        return await self._manifests.get(name)

    def known_manifest(self, name: str) -> Manifest | None:
        """The same where it was looked at a moment ago, and the worker has it in memory: its files are not read."""
        known = self._manifests.peek(name)
        return known if known is not None and self._pool.holds(known) else None

    async def manifest_now(self, name: str) -> Manifest:
        """The same as the files are at this moment, for a worker that will read them. Raises as `usable`."""
        self._forget()
        return await self._manifests.get(name)

    async def load(self, name: str, keep_alive_s: float | None) -> ModelView:
        """Until it is in device memory. `keep_alive_s` as WorkerPool.load has it."""
        manifest = await self.manifest_now(name)
        await self._pool.load(manifest, keep_alive_s)
        return await self.get(name)

    async def unload(self, name: str) -> ModelView:
        """Until its memory is given back: a model's, an upscaler's or a control model's."""
        found = await self.held_beside([name])
        model = found[0] if found else await self._find(name)
        await self._pool.unload(model.name)
        return await self._view(model)

    async def add(self, path: Path, wish: Wish) -> AsyncGenerator[Event, None]:
        """How far it is, then the model or the part, unless it was only planned. Raises as Importer.add."""
        async for event in self._importing(lambda tell: self._importer.add(path, wish, tell)):
            yield event

    async def pull(self, remote: Remote, wish: Wish) -> AsyncGenerator[Event, None]:
        """As `add`. Raises as Importer.pull."""
        async for event in self._importing(lambda tell: self._importer.pull(remote, wish, tell)):
            yield event

    async def import_folder(
        self, path: Path, loras: Loras, *, plan_only: bool
    ) -> AsyncGenerator[Progress | FolderEntry, None]:
        """What a folder of another program's holds, registered where it lies. Raises as FolderImporter.run."""
        try:
            async for event in self._folders.run(path, loras, plan_only=plan_only):
                yield event
        finally:
            self._forget()

    async def delete(self, name: str) -> int:
        """Unload and forget a model, or forget a part; bytes that were deleted.

        Raises UNKNOWN_MODEL, INVALID_FIELD, IN_USE.
        """
        if self._registry.part(name) is not None:
            if self._pool.is_needed(name):
                raise registries.in_use(name)
            await self._pool.unload(name)
            return await self._importer.forget_files(await self._registry.remove_part(name))
        place = await self._registry.find(name)
        self._registry.check_removable(place)
        if self._pool.is_needed(place.name):
            raise registries.in_use(place.name)
        await self._pool.unload(place.name)
        await self._registry.remove(place)
        self._forget()
        return await self._importer.forget_files(place)

    async def update(self, name: str, predicts: str | None, kept_in: str | None) -> ModelView:
        """What its user says that a model predicts and is kept in; "auto" or "" takes it back, None leaves it.

        Raises UNKNOWN_MODEL, INVALID_FIELD, and IN_USE while unfinished jobs need it.
        """
        place = await self._registry.find(name)
        said = place.prediction if predicts is None else prediction.check(predicts)
        kept = place.precision if kept_in is None else precision.check(kept_in)
        if place.built_in and predicts is not None:
            raise invalid("name", f"{place.name} came with craft, which knows what it predicts", "choose another model")
        await self._importer.check_prediction(replace(place, prediction=said))
        if self._pool.is_needed(place.name):
            raise registries.in_use(place.name)
        await self._pool.unload(place.name)  # it was loaded as something else
        place = await self._registry.set_sayings(place, said, kept)
        self._forget()
        return await self._view(await self._read(place))

    async def set_parts(self, name: str, asked: Asked, *, own_vae: bool) -> ModelView:
        """Text encoders and a VAE from files of their own; `own_vae`: the model's own again.

        Raises UNKNOWN_MODEL, INVALID_FIELD, UNSUPPORTED_MODEL, NO_INPUT, and IN_USE while unfinished jobs need it.
        """
        place = await self._registry.find(name)
        if place.built_in:
            raise invalid("name", f"{place.name} came with craft and keeps its parts", "choose another model")
        if self._pool.is_needed(place.name):
            raise registries.in_use(place.name)
        place = await self._importer.use_parts(place, asked, own_vae=own_vae)
        await self._pool.unload(place.name)  # it was loaded as something else
        self._forget()
        return await self._view(await self._read(place))

    async def set_alias(self, alias: str, name: str) -> ModelView:
        """Raises INVALID_FIELD, NAME_TAKEN, UNKNOWN_MODEL."""
        place = await self._registry.set_alias(alias, name)
        self._forget()
        return await self._view(await self._read(place))

    async def delete_alias(self, alias: str) -> None:
        """Raises INVALID_FIELD."""
        await self._registry.delete_alias(alias)
        self._forget()

    async def _importing(
        self, work: Callable[[Callable[[Progress], None]], Awaitable[Imported]]
    ) -> AsyncGenerator[Event, None]:
        """Whoever goes away meanwhile ends it."""
        events: asyncio.Queue[Progress | None] = asyncio.Queue()

        async def run() -> Imported:
            try:
                return await work(events.put_nowait)
            finally:
                events.put_nowait(None)

        task = asyncio.create_task(run(), name="import a model")
        try:
            while (event := await events.get()) is not None:
                yield event
            place = await task
        finally:
            task.cancel()
            await asyncio.wait([task])
            self._forget()
        if isinstance(place, Part):
            yield self._part_view(place)
        elif isinstance(place, PullPlan):
            yield replace(place, device_bytes=self._pool.device_bytes, precision=self._pool.precision)
        elif place is not None:
            yield await self._view(await self._read(place))

    def _forget(self) -> None:
        self._models.forget()
        self._manifests.forget()

    async def _manifest(self, name: str) -> Manifest:
        return await self._hashes.manifest(await self.usable(name))

    async def _find(self, name: str) -> Model:
        if name == LANCZOS:
            return upscaler.lanczos()
        part = self._registry.part(name)
        if part is not None and part.upscaling is not None:
            return await asyncio.to_thread(upscaler.of_part, part)
        return await self._read(await self._registry.find(name))

    async def _named_or_hashed(self, name: str) -> Model:
        try:
            return await self._find(name)
        except CraftError as exc:
            digits = name.lower()
            if exc.reason != "UNKNOWN_MODEL" or not _HASH.fullmatch(digits):
                raise
            for place in await self._registry.places():
                model = await self._read(place)
                with contextlib.suppress(CraftError):  # its files have just gone: the others may be meant
                    if not model.refused and await self._hashes.is_of(model, digits):
                        return model
            raise

    async def _read(self, place: ModelSource) -> Model:
        return replace(await self._importer.read(place), source=place.source, memory_precision=place.precision)

    def _part_view(self, part: Part) -> PartView:
        return PartView.of(part, self._registry.users_of(part.name))

    async def _view(self, model: Model) -> ModelView:
        try:
            manifest = None if model.refused else await self._hashes.known_manifest(model)
        except CraftError:  # its files have just gone
            manifest = None
        loaded_on = self._pool.loaded_on(model.name)
        return ModelView(model, manifest.sha256 if manifest else "", loaded_on, self._registry.aliases_of(model.name))
