"""Pictures that requests carry become inputs of their callers: stored, and decoded in a confined process alone."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator

from craftd.http.drawing import said_as
from craftd.inputs.input import Input, Upload
from craftd.inputs.service import InputService
from craftd.keys.caller import Caller
from craftd.workers import masks
from craftd.workers.masks import Meaning

_CHUNK_BYTES = 1 << 20


class Inputs:
    """What is wrong with a picture is said of the request's own `field`."""

    def __init__(self, service: InputService) -> None:
        self._service = service

    async def keep(self, caller: Caller, field: str, data: bytes | memoryview) -> Input:
        """Raises BAD_INPUT, DISK_FULL, STORAGE_FAILED."""
        sha256 = (await asyncio.to_thread(hashlib.sha256, data)).hexdigest()
        with said_as({"picture": field}):
            return await self._service.put(Upload(caller.owner, sha256, len(data), 0, _chunks(data)))

    async def keep_mask(self, caller: Caller, field: str, data: bytes | memoryview, meaning: Meaning) -> Input:
        """As a mask of craft's, whatever it means where it comes from. Raises as `keep`."""
        return await self.converted(caller, field, await self.keep(caller, field, data), meaning)

    async def converted(self, caller: Caller, field: str, mask: Input, meaning: Meaning) -> Input:
        """Raises as `keep`."""
        _, path = await self._service.file(caller.owner, mask.sha256, field)
        with said_as({"picture": field}):
            made = await masks.converted(path, meaning)
        return await self.keep(caller, field, made)


async def _chunks(data: bytes | memoryview) -> AsyncIterator[bytes]:
    for start in range(0, len(data), _CHUNK_BYTES):
        yield bytes(data[start : start + _CHUNK_BYTES])
