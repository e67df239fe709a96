"""One LoRA file: nothing in it that could do harm, every number finite, and what it is."""

from __future__ import annotations

import hashlib
import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from craft_protos.reasons import CraftError

from craftd import safetensors
from craftd.documents import File
from craftd.refusal import corrupt, shown
from craftd.safetensors import Header, Tensor
from craftd.worker.inspection import metadata
from craftd.worker.inspection.finite import is_finite
from craftd.worker.inspection.tree import single
from craftd.worker.lora import reading
from craftd.worker.lora.reading import Reading

_PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl", ".pickle")
_PIECE_BYTES = 4 << 20  # a multiple of every number's size


@dataclass(frozen=True)
class Adapter:
    """What its reading tells of a LoRA, whatever model it is for."""

    format: str  # "kohya", "peft", "diffusers", "xlabs"; several joined by "+"
    base: str  # architecture, "" where unknown
    rank: int  # the largest
    layers: int
    adapts_text_encoder: bool
    has_conv: bool
    is_dora: bool
    notes: list[str]

    @classmethod
    def of(cls, found: Reading) -> Adapter:
        return cls(
            format="+".join(sorted(found.forms)),
            base=found.base,
            rank=found.rank,
            layers=len(found.layers),
            adapts_text_encoder=found.adapts_text_encoder,
            has_conv=found.has_conv,
            is_dora=found.is_dora,
            notes=found.notes,
        )


@dataclass(frozen=True)
class Found:
    """What a good file is."""

    adapter: Adapter
    sha256: str
    ss_hash: str  # kohya's sshs_model_hash: of the tensors' bytes alone
    size_bytes: int
    trigger: str
    metadata: dict[str, str]


def check(path: Path) -> Found:
    """Raises UNSAFE_PATH, UNSAFE_FORMAT, CORRUPT_FILE, UNSUPPORTED_LORA, NOT_FINITE."""
    file = single(path)
    if path.name.lower().endswith(_PICKLES) or "pickle" in safetensors.sniff(file.read(0, 16)):
        raise _pickle(file.name, path)
    header = safetensors.read(file)
    found = reading.read(shown(file.name), header.shapes, header.metadata)
    sha256, ss_hash = _read_through(file, header)
    return Found(
        Adapter.of(found),
        sha256,
        ss_hash,
        file.size_bytes,
        metadata.trigger(header.metadata),
        metadata.listed(header.metadata),
    )


def _read_through(file: File, header: Header) -> tuple[str, str]:
    """Every byte, once: (sha256 of the file, of the tensors). Raises NOT_FINITE, CORRUPT_FILE."""
    with file.opened() as descriptor:
        whole = hashlib.sha256(_exactly(file, descriptor, 0, header.offset))
        data = hashlib.sha256()
        for tensor in header.tensors:
            for piece in _pieces(file, descriptor, header.offset, tensor):
                if not is_finite(tensor.dtype, piece):
                    raise _not_finite(file, tensor)
                whole.update(piece)
                data.update(piece)
    return whole.hexdigest(), data.hexdigest()


def _pieces(file: File, descriptor: int, offset: int, tensor: Tensor) -> Iterator[bytes]:
    for start in range(tensor.start, tensor.end, _PIECE_BYTES):
        yield _exactly(file, descriptor, offset + start, min(_PIECE_BYTES, tensor.end - start))


def _exactly(file: File, descriptor: int, start: int, count: int) -> bytes:
    """A read may bring less than was asked for; the file's end may come early."""
    parts = b""
    while len(parts) < count:
        part = os.pread(descriptor, count - len(parts), start + len(parts))
        if not part:
            raise corrupt(file.name, f"{file.size_bytes} bytes", "fewer: it is being changed")
        parts += part
    return parts


def _not_finite(file: File, tensor: Tensor) -> CraftError:
    return CraftError(
        "NOT_FINITE",
        f"{shown(file.name)}: the tensor {shown(tensor.name)} holds NaN or infinity",
        "its training went wrong: take an earlier checkpoint, or another LoRA",
    )


def _pickle(name: str, path: Path) -> CraftError:
    return CraftError(
        "UNSAFE_FORMAT",
        f"{shown(name)} is a pickle file, which could run code; craft opens safetensors files only",
        f"convert it: craft convert {shlex.quote(str(path))}",
    )
