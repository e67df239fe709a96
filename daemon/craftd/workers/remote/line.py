"""A line between the front and another machine: frames over TLS, both ways, and the proof that the other end is there.

Either end sends something in a third of the keep-alive time. What counts is bytes, so that a large frame on a slow line
is no silence; an end that hears nothing for the whole of it closes the line.
"""

from __future__ import annotations

import asyncio
import logging
import re
import struct
import time
from typing import Generic, TypeVar

from craft_protos import frames
from craft_protos.frames import BadFrame
from craft_protos.remote_pb2 import Alive, FromRemote, Piece, ToRemote
from google.protobuf.message import DecodeError

_log = logging.getLogger("craft.fleet")
VERSION = 1  # of remote.proto's frames
PIECE_BYTES = 1 << 20
SMALL_BYTES = 64 << 10  # frames of who has shown no certificate
_READ_BYTES = 256 << 10
_PARTS = 3  # of the keep-alive time
_SHA256 = re.compile(r"[0-9a-f]{64}")

In = TypeVar("In", FromRemote, ToRemote)


class Line(Generic[In]):
    """One end. `kind`: what comes in. `closed`: why it ended, once it has."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        kind: type[In],
        *,
        most_bytes: int = frames.MAX_FRAME_BYTES,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._kind: type[In] = kind
        self._most_bytes = most_bytes
        self._heard_at = self._sent_at = time.monotonic()
        self.closed = ""
        name, tls = (writer.get_extra_info(one) for one in ("peername", "ssl_object"))  # a closed one has lost both
        self.peer = str(name[0]) if name else "?"  # the other end's host
        self.peer_certificate: bytes | None = tls.getpeercert(binary_form=True)  # DER; None where it showed none

    def trust(self, most_bytes: int = frames.MAX_FRAME_BYTES) -> None:
        """Take frames of that size from now on."""
        self._most_bytes = most_bytes

    async def receive(self) -> In | None:
        """The next frame; None once the line has ended. Raises BadFrame."""
        header = await self._exactly(4)
        if header is None:
            return None
        (length,) = struct.unpack(">I", header)
        if length > self._most_bytes:
            raise BadFrame(f"a frame of {length} bytes, where {self._most_bytes} is the most")
        if (body := await self._exactly(length)) is None:
            return None
        try:
            found: In = self._kind.FromString(bytes(body))
        except (DecodeError, ValueError, RecursionError) as exc:
            raise BadFrame("a frame that cannot be decoded") from exc
        return found

    def send(self, frame: FromRemote | ToRemote) -> None:
        """Hand it over; one that is closed ignores it."""
        if not self._writer.is_closing():
            self._sent_at = time.monotonic()
            self._writer.write(frames.encode(frame))

    async def send_in_turn(self, frame: FromRemote | ToRemote) -> None:
        """The same, and wait until the line takes more."""
        self.send(frame)
        try:
            await self._writer.drain()
        except OSError:
            self.close("it broke")

    async def keep(self, keepalive_s: float) -> None:
        """Prove that this end is here, and close the line once the other one is silent. Returns then."""
        alive = FromRemote(alive=Alive()) if self._kind is ToRemote else ToRemote(alive=Alive())
        part_s = keepalive_s / _PARTS
        while not self.closed:
            now = time.monotonic()
            if now - self._heard_at >= keepalive_s:
                self.close(f"nothing was heard for {keepalive_s:g} s")
            elif now - self._sent_at >= part_s:
                self.send(alive)
            await asyncio.sleep(part_s / 2)

    def close(self, why: str) -> None:
        """At once; what was not sent is lost."""
        self.closed = self.closed or why
        _abort(self._writer)

    async def close_in_turn(self, why: str) -> None:
        """After what was sent."""
        self.closed = self.closed or why
        try:
            await self._writer.drain()
            self._writer.close()
            await self._writer.wait_closed()
        except OSError:
            _abort(self._writer)

    async def _exactly(self, count: int) -> bytearray | None:
        parts = bytearray()
        while len(parts) < count:
            try:
                part = await self._reader.read(min(count - len(parts), _READ_BYTES))
            except OSError as exc:
                self.closed = self.closed or f"it broke: {exc.strerror or exc}"
                return None
            if not part:
                self.closed = self.closed or "the other end closed it"
                return None
            self._heard_at = time.monotonic()
            parts += part
        return parts


def _abort(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


def required_sha256(text: str) -> str:
    """Raises BadFrame for what is none: it becomes a file's name."""
    if not _SHA256.fullmatch(text):
        raise BadFrame(f"a file's name that is no sha256 ({text[:80]!r})")
    return text


def checked_piece(piece: Piece) -> Piece:
    """Raises BadFrame for one that cannot be."""
    required_sha256(piece.sha256)
    if len(piece.data) > PIECE_BYTES or piece.offset + len(piece.data) > piece.size_bytes:
        raise BadFrame(f"a piece of {len(piece.data)} bytes at {piece.offset} of a file of {piece.size_bytes}")
    return piece
