"""Pictures to draw from, at a real daemon."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence

from craft_protos import inputs_pb2 as pb

from tests.daemon.harness import Daemon

Put = pb.PutInputRequest


def sha256_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def header(data: bytes, offset: int = 0) -> pb.PutInputRequest:
    return Put(header=Put.Header(sha256=sha256_of(data), size_bytes=len(data), offset=offset))


async def put(daemon: Daemon, data: bytes) -> pb.Input:
    return await send(daemon, [header(data), *(Put(chunk=data[at : at + 1000]) for at in range(0, len(data), 1000))])


async def send(daemon: Daemon, parts: Sequence[pb.PutInputRequest]) -> pb.Input:
    async def given() -> AsyncIterator[pb.PutInputRequest]:
        for part in parts:
            yield part

    return await daemon.inputs.PutInput(given())


async def find(daemon: Daemon, data: bytes) -> pb.FindInputResponse:
    return await daemon.inputs.FindInput(pb.FindInputRequest(sha256=sha256_of(data)))
