"""A page of a list, as large as a message may be."""

from __future__ import annotations

from typing import TypeVar

from google.protobuf.message import Message

from craftd.images.service import page_of

M = TypeVar("M", bound=Message)

_LARGEST_BYTES = 2 << 20  # clients refuse messages beyond 4 MiB


def cut(found: list[tuple[int, M]], asked_for: int) -> tuple[list[M], str]:
    """(as many of the messages as fit, the token of the page after them)."""
    taken: list[M] = []
    size_bytes = 0
    for seq, message in found:
        size_bytes += message.ByteSize()
        taken.append(message)
        if size_bytes >= _LARGEST_BYTES:
            return taken, str(seq)
    is_last = len(found) < page_of(asked_for, "")[0]
    return taken, "" if is_last or not found else str(found[-1][0])
