"""A training's losses as TensorBoard reads them: a file of events, each a record of TFRecord's with its two checksums.

The messages are tensorflow's Event and Summary, whose few fields are written here by themselves.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from craft_protos import training_pb2

_CASTAGNOLI = 0x82F63B78
_DELTA = 0xA282EAD8  # by which TFRecord masks its checksums
_VERSION = b"brain.Event:2"
_DOUBLE, _VARINT, _BYTES, _FLOAT = 1, 0, 2, 5  # kinds of fields


def events(steps: Iterable[training_pb2.TrainingStep], begun_s: float) -> bytes:
    """A file's contents: loss, learning rate and loss of validation by step. `begun_s`: when the training began."""
    records = [_record(_event(begun_s, 0) + _field(3, _BYTES, _VERSION))]
    for step in steps:
        for tag, value in _scalars(step):
            told = _field(1, _BYTES, tag.encode()) + _field(2, _FLOAT, struct.pack("<f", value))
            summary = _field(5, _BYTES, _field(1, _BYTES, told))
            records.append(_record(_event(begun_s, step.step) + summary))
    return b"".join(records)


def _scalars(step: training_pb2.TrainingStep) -> Iterator[tuple[str, float]]:
    yield "loss/train", step.loss
    yield "learning_rate", step.learning_rate
    if step.HasField("validation_loss"):
        yield "loss/validation", step.validation_loss


def _event(wall_s: float, step: int) -> bytes:
    return _field(1, _DOUBLE, struct.pack("<d", wall_s)) + _field(2, _VARINT, _varint(step))


def _field(number: int, kind: int, value: bytes) -> bytes:
    length = _varint(len(value)) if kind == _BYTES else b""
    return _varint(number << 3 | kind) + length + value


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*found, number])


def _record(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + _masked(length) + data + _masked(data)


def _masked(data: bytes) -> bytes:
    checksum = crc32c(data)
    return struct.pack("<I", ((checksum >> 15 | checksum << 17) + _DELTA) & 0xFFFFFFFF)


def crc32c(data: bytes) -> int:
    """The checksum of Castagnoli's polynomial (RFC 3720)."""
    table, checksum = _table(), 0xFFFFFFFF
    for byte in data:
        checksum = table[(checksum ^ byte) & 0xFF] ^ checksum >> 8
    return checksum ^ 0xFFFFFFFF


@cache
def _table() -> tuple[int, ...]:
    return tuple(map(_of_byte, range(256)))


def _of_byte(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (_CASTAGNOLI if byte & 1 else 0)
    return byte
