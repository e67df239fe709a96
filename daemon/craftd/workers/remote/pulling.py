"""A file fetched from the other end of a line: in pieces, from where it was left off, and checked before it counts."""

from __future__ import annotations

import asyncio
import errno
import hashlib
from collections.abc import Callable
from pathlib import Path

from craft_protos.remote_pb2 import Piece

from craftd.workers.remote.line import PIECE_BYTES

_HASHED_BYTES = 8 << 20


class Missing(OSError):
    """The other end has no such file, or another one."""


class Pulls:
    """Those of one line. `ask`: sends a Want for a file from an offset; its Piece comes to `receive`."""

    def __init__(self, ask: Callable[[str, int], None]) -> None:
        self._ask = ask
        self._waiting: dict[str, asyncio.Future[Piece]] = {}

    def receive(self, piece: Piece) -> bool:
        """False for one that nobody asked for."""
        waiting = self._waiting.pop(piece.sha256, None)
        if waiting is None or waiting.done():
            return waiting is not None
        waiting.set_result(piece)
        return True

    def fail(self, why: str) -> None:
        """The line is gone."""
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(ConnectionResetError(errno.ECONNRESET, why))
        self._waiting.clear()

    async def pull(
        self, sha256: str, half: Path, most_bytes: int, told: Callable[[int, int], None] = lambda _done, _of: None
    ) -> None:
        """Into `half`, which may have its beginning; after Missing it is of no use.

        `told` hears how far it is. Raises OSError.
        """
        with half.open("ab") as file:
            while True:
                offset = file.tell()
                piece = await self._next(sha256, offset)
                if piece.size_bytes > most_bytes:
                    raise Missing(errno.EFBIG, f"a file of {piece.size_bytes} bytes, where {most_bytes} are the most")
                await asyncio.to_thread(file.write, piece.data)
                told(file.tell(), piece.size_bytes)
                if file.tell() >= piece.size_bytes or not piece.data:
                    break
        if await asyncio.to_thread(_sha256_of, half) != sha256:
            raise Missing(errno.EBADMSG, "what was sent is another file")

    async def _next(self, sha256: str, offset: int) -> Piece:
        assert sha256 not in self._waiting, sha256
        future: asyncio.Future[Piece] = asyncio.get_running_loop().create_future()
        self._waiting[sha256] = future
        try:
            self._ask(sha256, offset)
            piece = await future
        finally:
            self._waiting.pop(sha256, None)
        if piece.missing:
            raise Missing(errno.ENOENT, piece.missing)
        if piece.offset != offset:
            raise Missing(errno.EBADMSG, "another piece than was asked for")
        return piece


async def read_piece(sha256: str, path: Path | None, offset: int) -> Piece:
    """What is sent for a Want; None: there is no such file."""
    try:
        if path is None:
            raise FileNotFoundError(errno.ENOENT, "it is not to be had here")
        data, size = await asyncio.to_thread(_read, path, offset)
    except (OSError, OverflowError) as exc:
        why = exc.strerror if isinstance(exc, OSError) else None
        return Piece(sha256=sha256, missing=why or "it cannot be read")
    return Piece(sha256=sha256, offset=offset, data=data, size_bytes=size)


def _read(path: Path, offset: int) -> tuple[bytes, int]:
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(min(offset, size))
        return file.read(PIECE_BYTES), size


def _sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while data := file.read(_HASHED_BYTES):
            digest.update(data)
    return digest.hexdigest()
