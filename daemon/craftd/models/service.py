"""Models: listed, shown, loaded, unloaded."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from craftd.models.hashes import FileHashes
from craftd.models.model import Manifest, Model, ModelView
from craftd.models.registry import Registry
from craftd.models.residency import Residency


class ModelService:
    def __init__(self, registry: Registry, hashes: FileHashes, residency: Residency) -> None:
        self._registry = registry
        self._hashes = hashes
        self.residency = residency

    async def list(self) -> list[ModelView]:
        models = await asyncio.to_thread(self._registry.models)
        return [await self._view(model) for model in models]

    async def get(self, name: str) -> ModelView:
        """With its hash, which takes a while for a model that is new. Raises UNKNOWN_MODEL."""
        model = await asyncio.to_thread(self._registry.find, name)
        view = await self._view(model)
        return (
            view if view.sha256 or model.refused else replace(view, sha256=(await self._hashes.manifest(model)).sha256)
        )

    async def usable(self, name: str) -> Model:
        """Raises UNKNOWN_MODEL, or why it cannot be drawn with."""
        return await asyncio.to_thread(self._registry.usable, name)

    async def manifest(self, name: str) -> Manifest:
        """Every file with its hash. Raises as `usable`."""
        return await self._hashes.manifest(await self.usable(name))

    async def load(self, name: str, keep_alive_s: float) -> ModelView:
        """Until it is in device memory."""
        manifest = await self.manifest(name)
        await self.residency.load(manifest, keep_alive_s)
        return await self.get(name)

    async def unload(self, name: str) -> ModelView:
        """Until its memory is given back."""
        model = await asyncio.to_thread(self._registry.find, name)
        await self.residency.unload(name)
        return await self._view(model)

    async def _view(self, model: Model) -> ModelView:
        manifest = None if model.refused else await self._hashes.known_manifest(model)
        loaded_on = (self.residency.device,) if self.residency.is_loaded(model.name) else ()
        return ModelView(model, manifest.sha256 if manifest else "", loaded_on)
