"""GGUF files byte by byte, true or not: what no library would write."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

TEXT, ARRAY, U32, I32, U64 = 8, 9, 4, 5, 10


@dataclass
class Gguf:
    """Counts of None are those of what is there."""

    tensors: list[bytes] = field(default_factory=list)
    entries: list[bytes] = field(default_factory=list)
    data: bytes = b""
    magic: bytes = b"GGUF"
    version: int = 3
    tensor_count: int | None = None
    entry_count: int | None = None
    alignment: int = 32

    def bytes(self) -> bytes:
        counts = (
            len(self.tensors) if self.tensor_count is None else self.tensor_count,
            len(self.entries) if self.entry_count is None else self.entry_count,
        )
        head = self.magic + struct.pack("<IQQ", self.version, *counts) + b"".join(self.entries + self.tensors)
        return head + bytes(-len(head) % self.alignment) + self.data


def text(value: bytes | str, length: int | None = None) -> bytes:
    content = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(content) if length is None else length) + content


def info(name: bytes | str, sides: list[int], kind: int, start: int = 0, dimensions: int | None = None) -> bytes:
    """`sides` as GGUF has them: the innermost first."""
    count = len(sides) if dimensions is None else dimensions
    return text(name) + struct.pack(f"<I{len(sides)}QIQ", count, *sides, kind, start)


def entry(key: bytes | str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def array(kind: int, count: int, values: bytes) -> bytes:
    return struct.pack("<IQ", kind, count) + values
