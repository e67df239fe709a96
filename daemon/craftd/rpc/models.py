"""The Models service."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

from craft_protos import models_pb2 as pb
from craft_protos.reasons import invalid

from craftd.hub.repository import DEFAULT_REVISION, Address
from craftd.jobs.bases import base_of
from craftd.keys.caller import Caller
from craftd.loras.service import LoraService
from craftd.models.importing import Remote, Wish
from craftd.models.model import ModelView, Progress
from craftd.models.service import ModelService
from craftd.rpc import mapping


class Models:
    def __init__(self, service: ModelService, loras: LoraService) -> None:
        self._service = service
        self._loras = loras

    async def ListModels(self, _request: pb.ListModelsRequest, _: Caller) -> pb.ListModelsResponse:
        return pb.ListModelsResponse(models=[await self._message(view) for view in await self._service.list()])

    async def GetModel(self, request: pb.GetModelRequest, _: Caller) -> pb.Model:
        return await self._message(await self._service.get(request.name))

    async def LoadModel(self, request: pb.LoadModelRequest, _: Caller) -> pb.Model:
        if not math.isfinite(request.keep_alive_s):
            raise invalid("keep_alive_s", "must be a number of seconds; 0: not at all, negative: for ever")
        keep_alive_s = request.keep_alive_s if request.HasField("keep_alive_s") else None
        return await self._message(await self._service.load(request.name, keep_alive_s))

    async def UnloadModel(self, request: pb.UnloadModelRequest, _: Caller) -> pb.Model:
        return await self._message(await self._service.unload(request.name))

    async def ImportModel(self, request: pb.ImportModelRequest, _: Caller) -> AsyncIterator[pb.ImportModelEvent]:
        wish = Wish(request.name, request.plan_only)
        match request.WhichOneof("source"):
            case "path":
                events = self._service.add(Path(request.path), wish)
            case "hub":
                events = self._service.pull(_remote(request.hub), wish)
            case _:
                raise invalid("source", "is missing", "say where the model is: a path, or a repository on the hub")
        async with aclosing(events):
            async for event in events:
                if isinstance(event, Progress):
                    yield pb.ImportModelEvent(progress=mapping.import_progress(event))
                else:
                    yield pb.ImportModelEvent(model=await self._message(event))

    async def DeleteModel(self, request: pb.DeleteModelRequest, _: Caller) -> pb.DeleteModelResponse:
        return pb.DeleteModelResponse(freed_bytes=await self._service.delete(request.name))

    async def SetAlias(self, request: pb.SetAliasRequest, _: Caller) -> pb.Model:
        return await self._message(await self._service.set_alias(request.alias, request.model))

    async def DeleteAlias(self, request: pb.DeleteAliasRequest, _: Caller) -> pb.DeleteAliasResponse:
        await self._service.delete_alias(request.alias)
        return pb.DeleteAliasResponse()

    async def _message(self, view: ModelView) -> pb.Model:
        base = await asyncio.to_thread(base_of, view.model)
        return mapping.model(view, base, self._loras.names_for(base) if base else ())


def _remote(hub: pb.HubSource) -> Remote:
    return Remote(Address(hub.repository, hub.revision or DEFAULT_REVISION), hub.file)
