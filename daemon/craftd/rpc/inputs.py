"""The Inputs service."""

from __future__ import annotations

from collections.abc import AsyncIterator

from craft_protos import inputs_pb2 as pb
from craft_protos.reasons import invalid

from craftd.inputs.input import Input, Upload
from craftd.inputs.service import InputService
from craftd.keys.caller import Caller
from craftd.rpc.mapping import timestamp


class Inputs:
    def __init__(self, service: InputService) -> None:
        self._service = service

    async def PutInput(self, requests: AsyncIterator[pb.PutInputRequest], caller: Caller) -> pb.Input:
        header = await _header(requests)
        upload = Upload(caller.owner, header.sha256, header.size_bytes, header.offset, _chunks(requests))
        return _input(await self._service.put(upload))

    async def FindInput(self, request: pb.FindInputRequest, caller: Caller) -> pb.FindInputResponse:
        found = await self._service.find(caller.scope, caller.owner, request.sha256)
        return pb.FindInputResponse(
            input=None if found.input is None else _input(found.input), received_bytes=found.received_bytes
        )


async def _header(requests: AsyncIterator[pb.PutInputRequest]) -> pb.PutInputRequest.Header:
    first = await anext(requests, None)
    if first is None or first.WhichOneof("part") != "header":
        raise invalid("header", "must come first", "say which picture will come, then send it")
    return first.header


async def _chunks(requests: AsyncIterator[pb.PutInputRequest]) -> AsyncIterator[bytes]:
    async for request in requests:
        if request.WhichOneof("part") != "chunk":
            raise invalid("chunk", "is missing", "after the header come the picture's bytes")
        yield request.chunk


def _input(one: Input) -> pb.Input:
    return pb.Input(
        sha256=one.sha256,
        size_bytes=one.size_bytes,
        media_type=one.media_type,
        width=one.width,
        height=one.height,
        has_alpha=one.has_alpha,
        expire_time=timestamp(one.expire_time),
    )
