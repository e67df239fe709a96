"""Models: listed, shown, imported, named, loaded, unloaded, removed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

from craft_protos.reasons import CraftError

from craftd.models import registry as registries
from craftd.models.hashes import FileHashes
from craftd.models.importing import Importer, Remote, Wish
from craftd.models.model import Manifest, Model, ModelView, Progress
from craftd.models.place import Place
from craftd.models.registry import Registry
from craftd.models.residency import Residency


class ModelService:
    def __init__(self, registry: Registry, importer: Importer, hashes: FileHashes, residency: Residency) -> None:
        self._registry = registry
        self._importer = importer
        self._hashes = hashes
        self.residency = residency

    async def open(self) -> None:
        """Once, before anything else."""
        await self._registry.open()

    async def list(self) -> list[ModelView]:
        models = await asyncio.gather(*(self._read(place) for place in await self._registry.places()))
        return [await self._view(model) for model in models]

    async def get(self, name: str) -> ModelView:
        """With its hash, which takes a while for a model that is new. Raises UNKNOWN_MODEL."""
        model = await self._find(name)
        view = await self._view(model)
        return (
            view if view.sha256 or model.refused else replace(view, sha256=(await self._hashes.manifest(model)).sha256)
        )

    async def usable(self, name: str) -> Model:
        """A model that can be drawn with. Raises UNKNOWN_MODEL, UNSAFE_FORMAT, UNSAFE_PATH, CORRUPT_FILE, ..."""
        model = await self._find(name)
        model.check_usable()
        return model

    async def manifest(self, name: str) -> Manifest:
        """Every file with its hash. Raises as `usable`."""
        return await self._hashes.manifest(await self.usable(name))

    async def load(self, name: str, keep_alive_s: float | None) -> ModelView:
        """Until it is in device memory. `keep_alive_s` as Residency.load has it."""
        manifest = await self.manifest(name)
        await self.residency.load(manifest, keep_alive_s)
        return await self.get(name)

    async def unload(self, name: str) -> ModelView:
        """Until its memory is given back."""
        model = await self._find(name)
        await self.residency.unload(model.name)
        return await self._view(model)

    async def add(self, path: Path, wish: Wish) -> AsyncGenerator[Progress | ModelView, None]:
        """How far it is, then the model, unless it was only planned. Raises as Importer.add."""
        async for event in self._importing(lambda tell: self._importer.add(path, wish, tell)):
            yield event

    async def pull(self, remote: Remote, wish: Wish) -> AsyncGenerator[Progress | ModelView, None]:
        """As `add`. Raises as Importer.pull."""
        async for event in self._importing(lambda tell: self._importer.pull(remote, wish, tell)):
            yield event

    async def delete(self, name: str) -> int:
        """Unload and forget it; bytes that were deleted. Raises UNKNOWN_MODEL, INVALID_FIELD, IN_USE."""
        place = await self._registry.find(name)
        self._registry.check_removable(place)
        if self.residency.is_needed(place.name):
            raise registries.in_use(place.name)
        await self.residency.unload(place.name)
        await self._registry.remove(place)
        return await self._importer.forget_files(place)

    async def set_alias(self, alias: str, name: str) -> ModelView:
        """Raises INVALID_FIELD, NAME_TAKEN, UNKNOWN_MODEL."""
        return await self._view(await self._read(await self._registry.set_alias(alias, name)))

    async def delete_alias(self, alias: str) -> None:
        """Raises INVALID_FIELD."""
        await self._registry.delete_alias(alias)

    async def _importing(
        self, work: Callable[[Callable[[Progress], None]], Awaitable[Place | None]]
    ) -> AsyncGenerator[Progress | ModelView, None]:
        """Whoever goes away meanwhile ends it."""
        events: asyncio.Queue[Progress | None] = asyncio.Queue()

        async def run() -> Place | None:
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
        if place is not None:
            yield await self._view(await self._read(place))

    async def _find(self, name: str) -> Model:
        return await self._read(await self._registry.find(name))

    async def _read(self, place: Place) -> Model:
        return replace(await self._importer.read(place), source=place.source)

    async def _view(self, model: Model) -> ModelView:
        try:
            manifest = None if model.refused else await self._hashes.known_manifest(model)
        except CraftError:  # its files have just gone
            manifest = None
        loaded_on = (self.residency.device,) if self.residency.is_loaded(model.name) else ()
        return ModelView(model, manifest.sha256 if manifest else "", loaded_on, self._registry.aliases_of(model.name))
