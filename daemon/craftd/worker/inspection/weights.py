"""safetensors files, by their header alone: every tensor's bytes are there, once, and nothing else is.

The format: 8 bytes of length (little-endian), that many of JSON, then the tensors' bytes.
https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from craftd.worker.inspection import documents
from craftd.worker.inspection.refusal import corrupt, shown
from craftd.worker.inspection.tree import File

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
class Layout:
    """What a header says, once it has been found true."""

    tensors: tuple[Tensor, ...]  # as they lie in the file, without a gap
    offset: int  # where the first begins
    metadata: dict[str, str]


def check(file: File) -> frozenset[str]:
    """The tensors' names. Raises CORRUPT_FILE."""
    return frozenset(tensor.name for tensor in read(file).tensors)


def read(file: File) -> Layout:
    """Raises CORRUPT_FILE."""
    header, offset = _header(file)
    metadata = _metadata(file, header.pop("__metadata__", {}))
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
    return Layout(tuple(tensors), offset, metadata)


def sniff(head: bytes) -> str:
    """What a file looks like, by its first bytes; "": like safetensors, or like nothing known."""
    if head[8:9] == b"{":  # its length may be any bytes
        return ""
    for signature, what in _SIGNATURES:
        if head.startswith(signature):
            return what
    return "an HTML page" if head.lstrip()[:1] == b"<" else ""


def _header(file: File) -> tuple[dict[str, Any], int]:
    """The header, and where the tensors' bytes begin."""
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
    if head[8:9] != b"{":
        raise corrupt(file.name, "a safetensors header", "something else")
    return documents.parse(file.name, file.read(8, length), is_strict=True), 8 + length


def _metadata(file: File, metadata: object) -> dict[str, str]:
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
