"""The Models service."""

from __future__ import annotations

import math

from craft_protos import models_pb2 as pb
from craft_protos.reasons import invalid

from craftd.models.service import ModelService
from craftd.rpc import mapping
from craftd.rpc.guard import Context


class Models:
    def __init__(self, service: ModelService) -> None:
        self._service = service

    async def ListModels(self, _request: pb.ListModelsRequest, _: Context) -> pb.ListModelsResponse:
        return pb.ListModelsResponse(models=[mapping.model(view) for view in await self._service.list()])

    async def GetModel(self, request: pb.GetModelRequest, _: Context) -> pb.Model:
        return mapping.model(await self._service.get(request.name))

    async def LoadModel(self, request: pb.LoadModelRequest, _: Context) -> pb.Model:
        if not math.isfinite(request.keep_alive_s):
            raise invalid("keep_alive_s", "must be a number of seconds; negative: for ever")
        return mapping.model(await self._service.load(request.name, request.keep_alive_s))

    async def UnloadModel(self, request: pb.UnloadModelRequest, _: Context) -> pb.Model:
        return mapping.model(await self._service.unload(request.name))
