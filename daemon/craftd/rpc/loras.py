"""The Loras service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

from craft_protos import loras_pb2 as pb
from craft_protos.reasons import CraftError, invalid

from craftd.jobs.fits.service import Fits, LoraFit
from craftd.keys.caller import Caller
from craftd.loras.lora import Change, Linked, Lora, Progress, Remote, Source, Upload, Wish
from craftd.loras.service import LoraService
from craftd.models.service import ModelService
from craftd.rpc import mapping

_COMPARING = "comparing it with the models that are here"


class Loras:
    """`fits`: without it, nothing is told of how LoRAs fit the models."""

    def __init__(self, service: LoraService, models: ModelService, fits: Fits | None = None) -> None:
        self._service = service
        self._models = models
        self._fits = fits

    async def ListLoras(self, request: pb.ListLorasRequest, caller: Caller) -> pb.ListLorasResponse:
        loras = self._service.list(caller)
        if not request.model or self._fits is None:
            return pb.ListLorasResponse(loras=[mapping.lora(one, caller) for one in loras])
        model = await self._models.usable(request.model)
        (found,) = await self._fits.learn(loras, [model])
        return pb.ListLorasResponse(loras=[mapping.lora(one.lora, caller, fits=[one]) for one in found if one.is_whole])

    async def GetLora(self, request: pb.GetLoraRequest, caller: Caller) -> pb.Lora:
        found = self._service.find(request.lora, caller)
        message = mapping.lora(found, caller, is_whole=True, fits=await self._fits_of(found))
        message.preview = await self._service.preview(found)
        return message

    async def ImportLora(
        self, requests: AsyncIterator[pb.ImportLoraRequest], caller: Caller
    ) -> AsyncIterator[pb.ImportLoraEvent]:
        header = await _header(requests)
        async with aclosing(self._service.add(_source(header, requests, caller), _wish(header), caller)) as events:
            async for event in events:
                if isinstance(event, Lora):
                    yield _doing(_COMPARING)
                    fits = await self._fits_of(event)
                    yield pb.ImportLoraEvent(lora=mapping.lora(event, caller, is_whole=True, fits=fits))
                else:
                    yield pb.ImportLoraEvent(progress=mapping.import_progress(event))

    async def UpdateLora(self, request: pb.UpdateLoraRequest, caller: Caller) -> pb.Lora:
        change = Change(
            name=request.name if request.HasField("name") else None,
            weight=request.weight if request.HasField("weight") else None,
            trigger=request.trigger if request.HasField("trigger") else None,
            is_shared=request.shared if request.HasField("shared") else None,
        )
        return mapping.lora(await self._service.update(request.lora, change, caller), caller, is_whole=True)

    async def DeleteLora(self, request: pb.DeleteLoraRequest, caller: Caller) -> pb.DeleteLoraResponse:
        await self._service.delete(request.lora, caller)
        return pb.DeleteLoraResponse()

    async def _fits_of(self, lora: Lora) -> list[LoraFit]:
        """In each model that is here."""
        if self._fits is None:
            return []
        models = [view.model for view in await self._models.list() if not view.model.refused]
        return [one for found in await self._fits.learn([lora], models) for one in found]


def _doing(what: str) -> pb.ImportLoraEvent:
    return pb.ImportLoraEvent(progress=mapping.import_progress(Progress(what)))


async def _header(requests: AsyncIterator[pb.ImportLoraRequest]) -> pb.ImportLoraRequest.Header:
    first = await anext(requests, None)
    if first is None or first.WhichOneof("part") != "header":
        raise invalid("header", "must come first", "say what is imported, then send it")
    return first.header


def _source(
    header: pb.ImportLoraRequest.Header, requests: AsyncIterator[pb.ImportLoraRequest], caller: Caller
) -> Source:
    match header.WhichOneof("source"):
        case "path":
            _require_admin(caller, "path: only admins name files of the daemon's machine")
            return Linked(Path(header.path))
        case "upload":
            sent = header.upload
            return Upload(sent.file_name, sent.size_bytes, _chunks(requests), header.adapter_config)
        case "hub":
            _require_admin(caller, "hub: only admins have the daemon download")
            return Remote(mapping.address(header.hub), header.hub.file)
        case _:
            raise invalid("source", "is missing", "give a path, an upload or a repository")


async def _chunks(requests: AsyncIterator[pb.ImportLoraRequest]) -> AsyncIterator[bytes]:
    async for request in requests:
        if request.WhichOneof("part") != "chunk":
            raise invalid("chunk", "is missing", "after the header come the file's pieces")
        yield request.chunk


def _wish(header: pb.ImportLoraRequest.Header) -> Wish:
    return Wish(header.name, header.weight if header.HasField("weight") else None, header.trigger)


def _require_admin(caller: Caller, why: str) -> None:
    """A LoRA that a user brings comes as an upload, which is checked like every stranger's file."""
    if not caller.is_admin:
        raise CraftError("NOT_ALLOWED", why, "upload the file")
