"""Reads and writes the headers of safetensors files. A header counts only if every tensor's bytes are there, once.

The format: 8 bytes of length (little-endian), that many of JSON, then the tensors' bytes.
https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import struct
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from craftd import documents
from craftd.documents import File
from craftd.refusal import corrupt, shown

_HEADER_BYTES = 32 << 20  # the largest models' are of 1 to 2 MB
_MOST_DIMENSIONS = 16
_BITS = {
    "F4": 4,
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
}
PRECISIONS = {
    **{"F32": "fp32", "F16": "fp16", "BF16": "bf16", "F64": "fp64"},
    **dict.fromkeys(("F8_E4M3", "F8_E5M2"), "fp8"),
}
_SIGNATURES = (
    (b"PK\x03\x04", "a pickle of PyTorch's"),
    (b"\x80\x02", "a pickle"),
    (b"\x80\x04", "a pickle"),
    (b"GGUF", "a GGUF file"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"version https://git-lfs", "a Git LFS pointer: the file itself was never downloaded"),
)


@dataclass(frozen=True)
class Tensor:
    """One of a file's: its bytes lie from `start` to `end`, counted from the header's end."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class Header:
    """What a header says, once it has been found true."""

    tensors: tuple[Tensor, ...]  # as they lie in the file, without a gap
    offset: int  # where the first begins
    metadata: dict[str, str]

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {tensor.name: tensor.shape for tensor in self.tensors}

    def has(self, *beginnings: str) -> bool:
        """Whether a tensor's name begins so."""
        return any(self._has(beginning) for beginning in beginnings)

    def side(self, name: str, axis: int) -> int:
        """The length of a tensor's side; 0 where there is no such tensor."""
        shape = self.shapes.get(name, ())
        return shape[axis] if -len(shape) <= axis < len(shape) else 0

    def precision(self, *beginnings: str) -> str:
        """What most of the weights whose names begin so are kept in: "fp16", "Q4_K"; "" where that has no name."""
        kinds = Counter(
            tensor.dtype
            for tensor in self.tensors
            if tensor.name.startswith(beginnings) and tensor.name.endswith(".weight")
        )
        most = max(kinds, key=kinds.__getitem__, default="")
        return most if most.startswith(("Q", "IQ")) else PRECISIONS.get(most, "")

    def _has(self, beginning: str) -> bool:
        place = bisect_left(self._names, beginning)
        return place < len(self._names) and self._names[place].startswith(beginning)

    @cached_property
    def _names(self) -> list[str]:
        return sorted(self.shapes)


def read(file: File | Path) -> Header:
    """Raises CORRUPT_FILE."""
    if isinstance(file, Path):
        return read(File(str(file), file.resolve()))
    header, offset = document(file)
    metadata = _metadata(file, header.pop("__metadata__", None))
    tensors = sorted(
        (_tensor(file, name, value) for name, value in header.items()), key=lambda one: (one.start, one.end)
    )
    reached = 0
    for tensor in tensors:
        if tensor.start != reached:
            what = "overlaps another" if tensor.start < reached else f"leaves {tensor.start - reached} bytes unused"
            raise corrupt(file.name, "tensors that follow one another", f"{shown(tensor.name)}, which {what}")
        reached = tensor.end
    if offset + reached != file.size_bytes:
        raise corrupt(file.name, f"{offset + reached} bytes, as its header says", f"{file.size_bytes}")
    return Header(tuple(tensors), offset, metadata)


def joined(headers: Iterable[Header]) -> Header:
    """Of weights that lie in several files, as if they lay in one: for what asks for names and shapes alone."""
    told = list(headers)
    return told[0] if len(told) == 1 else Header(tuple(one for header in told for one in header.tensors), 0, {})


def document(file: File) -> tuple[dict[str, Any], int]:
    """The header as JSON, and where the tensors' bytes begin. Raises CORRUPT_FILE."""
    head = file.read(0, 64)
    if len(head) < 8:
        raise corrupt(file.name, "a safetensors file", f"only {file.size_bytes} bytes")
    what = sniff(head)
    if what:
        raise corrupt(file.name, "a safetensors file", what)
    (length,) = struct.unpack("<Q", head[:8])
    if length > _HEADER_BYTES:
        raise corrupt(file.name, f"a safetensors header of at most {_HEADER_BYTES} bytes", f"one of {length} bytes")
    if 8 + length > file.size_bytes:
        raise corrupt(file.name, f"a safetensors header of {length} bytes", f"{file.size_bytes} bytes in all")
    if not _begins_an_object(head):
        raise corrupt(file.name, "a safetensors header", "something else")
    return documents.parse(file.name, file.read(8, length), is_strict=True), 8 + length


def split(contents: bytes) -> tuple[dict[str, Any], int]:
    """The header of a file of craft's own, and where the tensors' bytes begin."""
    (length,) = struct.unpack("<Q", contents[:8])
    return json.loads(contents[8 : 8 + length]), 8 + length


def packed(header: Mapping[str, Any]) -> bytes:
    """A header as a file begins with it; the tensors' bytes follow."""
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def sniff(head: bytes) -> str:
    """What a file looks like, by its first bytes; "": like safetensors, or like nothing known."""
    if _begins_an_object(head):  # its length may be any bytes
        return ""
    for signature, what in _SIGNATURES:
        if head.startswith(signature):
            return what
    return "an HTML page" if head.lstrip()[:1] == b"<" else ""


def _begins_an_object(head: bytes) -> bool:
    """White space before it is JSON's to have."""
    return head[8:].lstrip(b" \t\r\n")[:1] in (b"{", b"") and len(head) > 8


def _metadata(file: File, metadata: object) -> dict[str, str]:
    if metadata is None:  # null is none, to the format's own reader too
        return {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise corrupt(file.name, "__metadata__ that maps texts to texts", "something else")
    return metadata


def _tensor(file: File, name: str, value: object) -> Tensor:
    dtype, shape, start, end = _fields(file, name, value)
    if dtype not in _BITS:
        raise corrupt(file.name, f"a known type of the tensor {shown(name)}", shown(dtype))
    if len(shape) > _MOST_DIMENSIONS or not all(map(_is_count, shape)):
        raise corrupt(file.name, f"whole numbers as the shape of {shown(name)}", shown(str(shape)))
    if not _is_count(start) or not _is_count(end) or end < start:
        raise corrupt(file.name, f"offsets of {shown(name)} in rising order", shown(f"{start}, {end}"))
    needed = _bytes(shape, _BITS[dtype], file.size_bytes)
    if needed != end - start:
        raise corrupt(file.name, f"{_count(needed)} bytes of {dtype} for {shown(name)}", f"{end - start}")
    return Tensor(name, dtype, tuple(shape), start, end)


def _fields(file: File, name: str, value: object) -> tuple[str, list[Any], Any, Any]:
    if isinstance(value, dict) and set(value) == {"dtype", "shape", "data_offsets"}:
        dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
        if isinstance(dtype, str) and isinstance(shape, list) and isinstance(offsets, list) and len(offsets) == 2:
            return dtype, shape, offsets[0], offsets[1]
    raise corrupt(file.name, f"type, shape and offsets of the tensor {shown(name)}", "something else")


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 63


def _bytes(shape: list[int], bits: int, most: int) -> int | None:
    """What a tensor of that shape takes; None: more than the file has, or no whole number of bytes."""
    if 0 in shape:
        return 0
    total = bits
    for side in shape:
        total *= side
        if total > 8 * most:
            return None
    return None if total % 8 else total // 8


def _count(needed: int | None) -> str:
    return "more" if needed is None else str(needed)
