"""The Models service."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import partial
from pathlib import Path

from craft_protos import models_pb2 as pb
from craft_protos.reasons import invalid

from craftd.jobs.fits.service import Fits
from craftd.keys.caller import Caller
from craftd.loras.lora import Linked, Lora
from craftd.loras.lora import Wish as LoraWish
from craftd.loras.service import LoraService
from craftd.models import catalogue
from craftd.models.finding import Asked
from craftd.models.folders import Loras
from craftd.models.model import ModelView, Progress, PullPlan
from craftd.models.part import PartView
from craftd.models.remotes import Remote
from craftd.models.service import Event, ModelService
from craftd.models.wish import Wish
from craftd.rpc import mapping

_OWN = "own"  # a VAE
_LONGEST_WORDS = 200


class Models:
    def __init__(self, service: ModelService, loras: LoraService, fits: Fits) -> None:
        self._service = service
        self._loras = loras
        self._fits = fits

    async def ListModels(self, _request: pb.ListModelsRequest, caller: Caller) -> pb.ListModelsResponse:
        return pb.ListModelsResponse(models=[await self._message(view, caller) for view in await self._service.list()])

    async def GetModel(self, request: pb.GetModelRequest, caller: Caller) -> pb.Model:
        return await self._message(await self._service.get(request.name), caller)

    async def LoadModel(self, request: pb.LoadModelRequest, caller: Caller) -> pb.Model:
        if not math.isfinite(request.keep_alive_s):
            raise invalid("keep_alive_s", "must be a number of seconds; 0: not at all, negative: for ever")
        keep_alive_s = request.keep_alive_s if request.HasField("keep_alive_s") else None
        return await self._message(await self._service.load(request.name, keep_alive_s), caller)

    async def UnloadModel(self, request: pb.UnloadModelRequest, caller: Caller) -> pb.Model:
        return await self._message(await self._service.unload(request.name), caller)

    async def ImportModel(self, request: pb.ImportModelRequest, caller: Caller) -> AsyncIterator[pb.ImportModelEvent]:
        parts = Asked(tuple(request.text_encoders), request.vae)
        wish = Wish(request.name, request.plan_only, request.prediction, parts, precision=request.precision)
        match request.WhichOneof("source"):
            case "path":
                events = self._service.add(Path(request.path), wish)
            case "hub":
                events = self._service.pull(_remote(request.hub), wish)
            case _:
                raise invalid("source", "is missing", "say where the model is: a path, or a repository on the hub")
        async with aclosing(events):
            async for event in events:
                yield await self._import_event(event, caller)

    async def DeleteModel(self, request: pb.DeleteModelRequest, _: Caller) -> pb.DeleteModelResponse:
        return pb.DeleteModelResponse(freed_bytes=await self._service.delete(request.name))

    async def UpdateModel(self, request: pb.UpdateModelRequest, caller: Caller) -> pb.Model:
        view = None
        prediction = request.prediction if request.HasField("prediction") else None
        precision = request.precision if request.HasField("precision") else None
        if prediction is not None or precision is not None:
            view = await self._service.update(request.name, prediction, precision)
        if request.vae or request.text_encoders:
            own_vae = request.vae == _OWN
            asked = Asked(tuple(request.text_encoders), "" if own_vae else request.vae)
            view = await self._service.set_parts(request.name, asked, own_vae=own_vae)
        return await self._message(view or await self._service.get(request.name), caller)

    async def ListParts(self, _request: pb.ListPartsRequest, caller: Caller) -> pb.ListPartsResponse:
        return pb.ListPartsResponse(parts=[mapping.part(view, caller) for view in await self._service.parts()])

    async def ImportFolder(
        self, request: pb.ImportFolderRequest, caller: Caller
    ) -> AsyncIterator[pb.ImportFolderEvent]:
        loras = Loras(partial(self._lora_of, caller), partial(self._add_lora, caller))
        events = self._service.import_folder(Path(request.path), loras, plan_only=request.plan_only)
        async with aclosing(events):
            async for event in events:
                if isinstance(event, Progress):
                    yield pb.ImportFolderEvent(progress=mapping.import_progress(event))
                else:
                    yield pb.ImportFolderEvent(entry=mapping.folder_entry(event))

    async def SearchCatalogue(self, request: pb.SearchCatalogueRequest, _: Caller) -> pb.SearchCatalogueResponse:
        found = catalogue.search(request.words[:_LONGEST_WORDS])
        return pb.SearchCatalogueResponse(entries=[mapping.catalogue_entry(entry) for entry in found])

    async def SetAlias(self, request: pb.SetAliasRequest, caller: Caller) -> pb.Model:
        return await self._message(await self._service.set_alias(request.alias, request.model), caller)

    async def DeleteAlias(self, request: pb.DeleteAliasRequest, _: Caller) -> pb.DeleteAliasResponse:
        await self._service.delete_alias(request.alias)
        return pb.DeleteAliasResponse()

    async def _import_event(self, event: Event, caller: Caller) -> pb.ImportModelEvent:
        match event:
            case Progress():
                return pb.ImportModelEvent(progress=mapping.import_progress(event))
            case PartView():
                return pb.ImportModelEvent(part=mapping.part(event, caller))
            case PullPlan():
                return pb.ImportModelEvent(plan=mapping.pull_plan(event))
            case _:
                return pb.ImportModelEvent(model=await self._message(event, caller))

    def _lora_of(self, caller: Caller, path: Path) -> str:
        return next((lora.name for lora in self._loras.list(caller) if lora.place.path == path), "")

    async def _add_lora(self, caller: Caller, path: Path) -> str:
        async for event in self._loras.add(Linked(path), LoraWish(), caller):
            if isinstance(event, Lora):
                return event.name
        raise AssertionError("it ends with the LoRA, or with an error")

    async def _message(self, view: ModelView, caller: Caller) -> pb.Model:
        """With the names of the LoRAs that the caller sees and that fit it."""
        fitting = [] if view.model.refused else await self._fits.fitting(self._loras.list(caller), view.model)
        return mapping.model(view, list(dict.fromkeys(lora.name for lora in fitting)), caller)


def _remote(hub: pb.HubSource) -> Remote:
    return Remote(mapping.address(hub), hub.file)
