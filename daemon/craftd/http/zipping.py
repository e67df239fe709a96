"""Pictures as one zip file, written while it is sent: nothing is compressed, since pictures are."""

from __future__ import annotations

import asyncio
import io
import zipfile
from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime

from craftd.http import encoding
from craftd.images.image import Image
from craftd.images.service import ImageService

MOST, MOST_BYTES = 500, 2 << 30


class _Pipe(io.RawIOBase):
    """What was written since it was last taken."""

    def __init__(self) -> None:
        self._data = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self._data += data
        return len(data)

    def take(self) -> bytes:
        taken, self._data = bytes(self._data), bytearray()
        return taken


async def zipped(service: ImageService, images: Sequence[Image]) -> AsyncGenerator[bytes, None]:
    """One picture at a time is in memory."""
    pipe = _Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_STORED) as file:
        for image in images:
            data = await encoding.read(service, image)
            made = datetime.fromtimestamp(max(image.create_time, 315_619_200), UTC)  # a zip knows none before 1980
            entry = zipfile.ZipInfo(f"craft-{image.seed}-{image.file_name}", made.timetuple()[:6])
            await asyncio.to_thread(file.writestr, entry, data)
            yield pipe.take()
    yield pipe.take()
