"""Reads the headers of GGUF files, with bounds on all that they may ask for. No tensor's bytes are read.

The format: magic, version, two counts, metadata, tensor infos, padding, then the tensors' bytes.
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from craftd import llama_names, safetensors
from craftd.documents import File
from craftd.refusal import corrupt, shown
from craftd.safetensors import Header, Tensor

MAGIC = b"GGUF"
_HEADER_BYTES = 64 << 20
_FIRST_BYTES = 256 << 10
_MOST_TENSORS = 1 << 17
_MOST_ENTRIES = 1 << 16
_LONGEST_NAME = 512  # bytes
_LONGEST_NOTE = 4096  # characters of a text that is kept
_MOST_DIMENSIONS = 4
_LARGEST_ALIGNMENT = 1 << 20
_ALIGNMENT = "general.alignment"
_VERSIONS = (2, 3)
ORIGINAL_SHAPE = "comfy.gguf.orig_shape."  # before the name of a tensor that was laid out anew for its blocks

# ggml's number of a type -> (name, numbers of a block, bytes of a block)
_TYPES = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    9: ("Q8_1", 32, 40),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1),
    25: ("I16", 1, 2),
    26: ("I32", 1, 4),
    27: ("I64", 1, 8),
    28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
}
BLOCKS = {name: (numbers, size) for name, numbers, size in _TYPES.values()}
_TEXT, _ARRAY = 8, 9
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


def is_gguf(path: Path) -> bool:
    """By its first bytes, as files are named by their hashes in the worker's store. Raises OSError."""
    with path.open("rb") as stream:
        return stream.read(len(MAGIC)) == MAGIC


def header(path: Path) -> Header:
    """Of a file of weights in either format. Raises CORRUPT_FILE, OSError."""
    return read(path) if is_gguf(path) else safetensors.read(path)


def read(file: File | Path) -> Header:
    """The header, its shapes as torch has them: outputs first. Raises CORRUPT_FILE."""
    if isinstance(file, Path):
        return read(File(str(file), file.resolve()))
    return _Reader(file).header()


@dataclass
class _Reader:
    """Goes through the header once, from its beginning to its end."""

    file: File
    data: bytes = b""
    place: int = 0

    def header(self) -> Header:
        if self._take(4) != MAGIC:
            raise self._wrong("a GGUF file", "other first bytes")
        version = self._number("I")
        if version not in _VERSIONS:
            raise self._wrong("version 2 or 3 of GGUF, little-endian", str(version))
        tensors = self._count("tensors", _MOST_TENSORS)
        entries = self._count("metadata entries", _MOST_ENTRIES)
        notes, shapes, alignment = self._metadata(entries)
        found = [self._tensor() for _ in range(tensors)]
        offset = -(-self.place // alignment) * alignment
        laid_out = self._laid_out(found, shapes, offset, alignment)
        return Header(self._named(laid_out, notes.get("general.architecture", "")), offset, notes)

    def _metadata(self, entries: int) -> tuple[dict[str, str], dict[str, tuple[int, ...]], int]:
        """Texts of a usual length, tensors' original shapes, and the alignment."""
        notes: dict[str, str] = {}
        shapes: dict[str, tuple[int, ...]] = {}
        alignment, seen = 32, set[str]()
        for _ in range(entries):
            key = self._name("a metadata key")
            if key in seen:
                raise self._wrong("each metadata key once", f"{shown(key)} twice")
            seen.add(key)
            value = self._value(self._number("I"))
            if key == _ALIGNMENT:
                alignment = self._alignment(value)
            elif isinstance(value, str):
                notes[key] = value[:_LONGEST_NOTE]
            elif isinstance(value, tuple) and key.startswith(ORIGINAL_SHAPE):
                shapes[key.removeprefix(ORIGINAL_SHAPE)] = value
        return notes, shapes, alignment

    def _alignment(self, value: object) -> int:
        if isinstance(value, int) and 1 <= value <= _LARGEST_ALIGNMENT and not value & (value - 1):
            return value
        raise self._wrong(f"a power of two as {_ALIGNMENT}", shown(str(value)))

    def _value(self, kind: int) -> str | int | float | tuple[int, ...] | None:
        """None: what is only passed over. Arrays of arrays do not come in files of models."""
        if kind == _TEXT:
            return self._text(self._count("bytes of a text", _HEADER_BYTES))
        if kind in _SCALARS:
            return self._number(_SCALARS[kind])
        if kind != _ARRAY:
            raise self._wrong("a known kind of metadata", f"number {kind}")
        inner = self._number("I")
        count = self._count("values of an array", _HEADER_BYTES)
        if inner == _TEXT:
            for _ in range(count):
                self._take(self._count("bytes of a text", _HEADER_BYTES))
            return None
        if inner not in _SCALARS:
            raise self._wrong("an array of numbers or texts", f"one of kind {inner}")
        return self._array(_SCALARS[inner], count)

    def _array(self, code: str, count: int) -> tuple[int, ...] | None:
        data = self._take(count * struct.calcsize(f"<{code}"))
        return struct.unpack(f"<{count}{code}", data) if code in "iIqQ" and count <= 8 else None

    def _tensor(self) -> tuple[str, str, tuple[int, ...], int]:
        """Name, type, shape and where its bytes begin behind the header."""
        name = self._name("a tensor's name")
        dimensions = self._number("I")
        if dimensions > _MOST_DIMENSIONS:
            raise self._wrong(f"at most {_MOST_DIMENSIONS} dimensions of {shown(name)}", str(dimensions))
        sides = tuple(self._number("Q") for _ in range(dimensions))
        kind, start = self._number("I"), self._number("Q")
        if kind not in _TYPES:
            raise self._wrong(f"a known type of the tensor {shown(name)}", f"number {kind}")
        return name, _TYPES[kind][0], tuple(reversed(sides)), start

    def _laid_out(
        self,
        found: list[tuple[str, str, tuple[int, ...], int]],
        shapes: dict[str, tuple[int, ...]],
        offset: int,
        alignment: int,
    ) -> tuple[Tensor, ...]:
        """In the order of their bytes, which lie in the file and nowhere twice."""
        names: set[str] = set()
        tensors = []
        for name, kind, shape, start in found:
            if name in names:
                raise self._wrong("each tensor once", f"{shown(name)} twice")
            names.add(name)
            end = start + self._bytes(name, kind, shape)
            if start % alignment or offset + end > self.file.size_bytes:
                raise self._wrong(f"the bytes of {shown(name)} inside the file", f"{start} to {end} of the tensors'")
            tensors.append(Tensor(name, kind, self._shape(name, shape, shapes), start, end))
        tensors.sort(key=lambda one: (one.start, one.end))
        for before, after in itertools.pairwise(tensors):
            if after.start < before.end:
                raise self._wrong("tensors that follow one another", f"{shown(after.name)}, which overlaps another")
        return tuple(tensors)

    def _named(self, tensors: tuple[Tensor, ...], architecture: str) -> tuple[Tensor, ...]:
        """With transformers' names, of text encoders."""
        named = tuple(replace(one, name=llama_names.renamed(architecture, one.name)) for one in tensors)
        if len({one.name for one in named}) < len(named):
            raise self._wrong("each tensor once", "one by two names")
        return named

    def _bytes(self, name: str, kind: str, shape: tuple[int, ...]) -> int:
        """Of a tensor, whose rows are whole blocks."""
        numbers, size = BLOCKS[kind]
        count = math.prod(shape)
        if not shape or not count or shape[-1] % numbers or count // numbers * size > self.file.size_bytes:
            raise self._wrong(f"a shape of {shown(name)} that {kind} can have", shown(str(shape)))
        return count // numbers * size

    def _shape(self, name: str, shape: tuple[int, ...], shapes: dict[str, tuple[int, ...]]) -> tuple[int, ...]:
        """As the network has it, where its maker laid it out anew and says how it was."""
        original = shapes.get(name, shape)
        if min(original, default=0) < 1 or math.prod(original) != math.prod(shape):
            raise self._wrong(f"as many numbers in the original shape of {shown(name)}", shown(str(original)))
        return original

    def _name(self, what: str) -> str:
        name = self._text(self._count(f"bytes of {what}", _LONGEST_NAME))
        if not name or not name.isprintable():
            raise self._wrong(f"{what} that can be printed", shown(name))
        return name

    def _text(self, length: int) -> str:
        try:
            return self._take(length).decode("utf-8")
        except UnicodeDecodeError as exc:
            raise self._wrong("texts in UTF-8", "other bytes") from exc

    def _count(self, what: str, most: int) -> int:
        count = self._number("Q")
        if count > most:
            raise self._wrong(f"at most {most} {what}", str(count))
        return count

    def _number(self, code: str) -> int:
        (found,) = struct.unpack(f"<{code}", self._take(struct.calcsize(f"<{code}")))
        number: int = found
        return number

    def _take(self, count: int) -> bytes:
        end = self.place + count
        if end > len(self.data):
            self._read_to(end)
        taken = self.data[self.place : self.place + count]
        self.place += count
        return taken

    def _read_to(self, end: int) -> None:
        """Twice as much as before: most headers are of some hundred kilobytes."""
        most = min(self.file.size_bytes, _HEADER_BYTES)
        if end <= most:
            self.data = self.file.read(0, min(most, max(end, 2 * len(self.data), _FIRST_BYTES)))
        if end > len(self.data):
            raise self._wrong("a header that ends inside the file", f"one that needs more than {most} bytes")

    @property
    def _wrong(self) -> Callable[[str, str], Exception]:
        return lambda expected, found: corrupt(self.file.name, expected, found)
