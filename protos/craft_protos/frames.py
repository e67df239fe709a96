"""The byte form of worker.proto's frames: 4 bytes of length, big-endian, then the message."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from craft_protos.codec import to_message
from craft_protos.dispatch import Cancel, Dispatch, Frame, Load, Preview, Unload
from craft_protos.worker_pb2 import ToWorker

MAX_FRAME_BYTES = 256 * 1024 * 1024

M = TypeVar("M", bound=Message)


class BadFrame(Exception):
    """The other end sent bytes that are no frame: the stream cannot be read any further."""


def encode(message: Message) -> bytes:
    """One frame."""
    body = message.SerializeToString()
    return struct.pack(">I", len(body)) + body


def to_worker(asked: Dispatch | Cancel | Load | Unload | Preview) -> ToWorker:
    """The message of what a worker is asked for."""
    return to_message(Frame(asked), ToWorker())


def receive(sock: socket.socket, kind: type[M]) -> M | None:
    """The next frame from a blocking socket; None at the end of the stream."""
    header = _receive_exactly(sock, 4)
    if header is None:
        return None
    body = _receive_exactly(sock, _length(header))
    return None if body is None else kind.FromString(body)


async def read(reader: asyncio.StreamReader, kind: type[M]) -> M | None:
    """The next frame from a stream; None once the stream has ended, however it ended. Raises BadFrame.

    A write that failed because the other end is gone is raised by the next read of asyncio's
    streams (BrokenPipeError among others): that, too, is the stream's end.
    """
    try:
        header = await reader.readexactly(4)
        body = await reader.readexactly(_length(header))
    except (asyncio.IncompleteReadError, OSError):
        return None
    try:
        return kind.FromString(body)
    except (DecodeError, ValueError, RecursionError) as exc:
        raise BadFrame("a frame that cannot be decoded") from exc


def _length(header: bytes) -> int:
    (length,) = struct.unpack(">I", header)
    if length > MAX_FRAME_BYTES:
        raise BadFrame(f"a frame of {length} bytes, where {MAX_FRAME_BYTES} is the most")
    return int(length)


def _receive_exactly(sock: socket.socket, count: int) -> bytes | None:
    parts = bytearray()
    while len(parts) < count:
        try:
            part = sock.recv(min(count - len(parts), 1 << 20))
        except OSError:
            return None
        if not part:
            return None
        parts += part
    return bytes(parts)
