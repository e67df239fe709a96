"""LoRAs over gRPC, as tests send them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import cast

import grpc
import grpc.aio
import pytest
from craft_protos import jobs_pb2, loras_pb2, loras_pb2_grpc
from craft_protos.loras_pb2 import ImportLoraRequest, Lora

from tests.daemon.harness import Daemon, details

Part = ImportLoraRequest


async def add(daemon: Daemon, path: Path, **fields: object) -> Lora:
    return await send(daemon, [Part(header=Part.Header(path=str(path), **fields))])  # type: ignore[arg-type]


async def upload(daemon: Daemon, path: Path, **fields: object) -> Lora:
    return await send(daemon, upload_parts(path, **fields))


def upload_parts(path: Path, **fields: object) -> list[Part]:
    data = path.read_bytes()
    header = Part.Header(upload=Part.Upload(file_name=path.name, size_bytes=len(data)), **fields)  # type: ignore[arg-type]
    return [Part(header=header), *(Part(chunk=data[start : start + 1000]) for start in range(0, len(data), 1000))]


async def send(daemon: Daemon, parts: list[Part]) -> Lora:
    return await asyncio.to_thread(_send, daemon.address, parts)


def _send(address: str, parts: list[Part]) -> Lora:
    """As the command does it: an asyncio client loses the answer that comes before it has sent everything."""
    with grpc.insecure_channel(address) as channel:
        *_, last = loras_pb2_grpc.LorasStub(channel).ImportLora(iter(parts))
    return last.lora


async def listed(daemon: Daemon, model: str = "") -> list[str]:
    answer = await daemon.loras.ListLoras(loras_pb2.ListLorasRequest(model=model))
    return [lora.name for lora in answer.loras]


async def find(daemon: Daemon, text: str) -> Lora:
    return await daemon.loras.GetLora(loras_pb2.GetLoraRequest(lora=text))


def use(lora: str, weight: float | None = None) -> jobs_pb2.LoraUse:
    return jobs_pb2.LoraUse(lora=lora, weight=weight)


async def refused(call: object) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.RpcError) as caught:
        await call  # type: ignore[misc]
    return cast(grpc.aio.AioRpcError, caught.value)


def hint(error: grpc.aio.AioRpcError) -> str:
    return dict(details(error)["ErrorInfo"].metadata)["hint"]  # type: ignore[attr-defined]
