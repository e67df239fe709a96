"""Models: listed, shown, loaded, unloaded."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from craft_protos.reasons import CraftError

from craftd.models import folder
from craftd.models.hashes import FileHashes
from craftd.models.model import Manifest, Model, ModelView
from craftd.models.registry import Place, Registry
from craftd.models.residency import Residency
from craftd.models.verdicts import Verdicts


class ModelService:
    def __init__(self, registry: Registry, verdicts: Verdicts, hashes: FileHashes, residency: Residency) -> None:
        self._registry = registry
        self._verdicts = verdicts
        self._hashes = hashes
        self.residency = residency

    async def list(self) -> list[ModelView]:
        places = await asyncio.to_thread(self._registry.places)
        models = await asyncio.gather(*(self._read(place) for place in places))
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
        if model.refused:
            why = f"model {model.name}: {model.refused_why}"
            raise CraftError(model.refused, why, model.refused_hint, field="model")
        return model

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
        model = await self._find(name)
        await self.residency.unload(name)
        return await self._view(model)

    async def _find(self, name: str) -> Model:
        return await self._read(await asyncio.to_thread(self._registry.find, name))

    async def _read(self, place: Place) -> Model:
        """Strangers' files are checked before anything is read; what came with craft is trusted."""
        if not place.built_in:
            verdict = await self._verdicts.of(place.folder)
            if verdict.reason:
                why = CraftError(verdict.reason, verdict.message, verdict.hint)
                return folder.refused(place.folder, why, name=place.name)
        return await asyncio.to_thread(folder.read, place.folder, name=place.name, built_in=place.built_in)

    async def _view(self, model: Model) -> ModelView:
        manifest = None if model.refused else await self._hashes.known_manifest(model)
        loaded_on = (self.residency.device,) if self.residency.is_loaded(model.name) else ()
        return ModelView(model, manifest.sha256 if manifest else "", loaded_on)
