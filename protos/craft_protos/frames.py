"""The byte form of worker.proto's frames: 4 bytes of length, big-endian, then the message."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import TypeVar

from google.protobuf.message import Message

MAX_FRAME_BYTES = 256 * 1024 * 1024

M = TypeVar("M", bound=Message)


def encode(message: Message) -> bytes:
    """One frame."""
    body = message.SerializeToString()
    return struct.pack(">I", len(body)) + body


def receive(sock: socket.socket, kind: type[M]) -> M | None:
    """The next frame from a blocking socket; None at the end of the stream."""
    header = _receive_exactly(sock, 4)
    if header is None:
        return None
    body = _receive_exactly(sock, _length(header))
    return None if body is None else kind.FromString(body)


async def read(reader: asyncio.StreamReader, kind: type[M]) -> M | None:
    """The next frame from a stream; None at its end."""
    try:
        header = await reader.readexactly(4)
        body = await reader.readexactly(_length(header))
    except (asyncio.IncompleteReadError, ConnectionResetError):
        return None
    return kind.FromString(body)


def _length(header: bytes) -> int:
    (length,) = struct.unpack(">I", header)
    if length > MAX_FRAME_BYTES:
        raise ValueError(f"a frame of {length} bytes")
    return int(length)


def _receive_exactly(sock: socket.socket, count: int) -> bytes | None:
    parts = bytearray()
    while len(parts) < count:
        try:
            part = sock.recv(min(count - len(parts), 1 << 20))
        except ConnectionResetError:
            return None
        if not part:
            return None
        parts += part
    return bytes(parts)
