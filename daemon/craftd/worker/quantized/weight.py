"""A weight that is kept packed, output by output: a byte a number with a scale for each output, or ggml's blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Protocol

import torch

from craftd.gguf import BLOCKS

Shape = tuple[int, ...]


class Form(Protocol):
    """How the bytes of a row stand for numbers."""

    @property
    def name(self) -> str: ...

    def columns(self, row_bytes: int) -> int:
        """How many numbers a row of so many bytes holds."""
        ...

    def unpack(self, rows: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """outputs, bytes -> outputs, numbers: without their scale."""
        ...


@dataclass(frozen=True)
class ByteForm:
    """A byte a number."""

    name: str
    kind: torch.dtype

    def columns(self, row_bytes: int) -> int:
        return row_bytes

    def unpack(self, rows: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        return rows.view(self.kind).to(dtype)


E4M3 = ByteForm("fp8 e4m3", torch.float8_e4m3fn)
E5M2 = ByteForm("fp8 e5m2", torch.float8_e5m2)
INT8 = ByteForm("int8", torch.int8)
BYTE_FORMS: dict[torch.dtype, Form] = {form.kind: form for form in (E4M3, E5M2, INT8)}


@dataclass(frozen=True)
class BlockForm:
    """ggml's blocks: a few bits a number, with scales of their own. Unpacked by diffusers' functions."""

    name: str  # "Q4_K"

    def columns(self, row_bytes: int) -> int:
        numbers, size = BLOCKS[self.name]
        return row_bytes // size * numbers

    def unpack(self, rows: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """In the fp16 of the blocks' own scales, as diffusers does it; for fp32, and on CPUs, in fp32."""
        numbers, size = BLOCKS[self.name]
        inner = torch.float32 if dtype == torch.float32 or not rows.is_cuda else torch.float16
        blocks = rows.reshape(-1, size)
        found: torch.Tensor = _unpackers()[self.name](blocks, numbers, size, inner)
        return found.reshape(rows.shape[0], -1)


@cache
def _unpackers() -> dict[str, Any]:
    """By the types' names. Imported when the first GGUF file comes."""
    from diffusers.quantizers.gguf import utils

    functions: dict[Any, Any] = utils.dequantize_functions
    return {kind.name: function for kind, function in functions.items()}


def block_types() -> frozenset[str]:
    """The types of ggml's blocks that can be drawn with."""
    return frozenset(_unpackers())


@dataclass(frozen=True)
class PackedWeight:
    """The weight of a linear layer or a convolution, or what a file has for one."""

    form: Form
    rows: torch.Tensor  # outputs, bytes: uint8
    shape: Shape
    scale: torch.Tensor | None = None  # outputs, 1: fp32

    @property
    def size_bytes(self) -> int:
        return int(self.rows.nbytes + (0 if self.scale is None else self.scale.nbytes))

    def dense(self, dtype: torch.dtype) -> torch.Tensor:
        """As numbers to compute with."""
        if self.scale is None:
            return self.form.unpack(self.rows, dtype).to(dtype).view(self.shape)
        return (self.form.unpack(self.rows, torch.float32) * self.scale).to(dtype).view(self.shape)

    def shaped(self, shape: Shape) -> PackedWeight:
        return replace(self, shape=shape)

    def taken(self, rows: torch.Tensor | slice) -> PackedWeight:
        """Some of its rows, in the order asked for."""
        chosen = self.rows[rows]
        scale = None if self.scale is None else self.scale[rows]
        return replace(self, rows=chosen, scale=scale, shape=(chosen.shape[0], *self.shape[1:]))


def joined(pieces: Sequence[PackedWeight]) -> PackedWeight | None:
    """The rows of one after those of another; None where they are packed differently."""
    first = pieces[0]
    if any(one.form != first.form or one.shape[1:] != first.shape[1:] for one in pieces):
        return None
    scales = [one.scale for one in pieces]
    scale = None
    if any(one is not None for one in scales):
        scale = torch.cat([_scale_of(one) for one in pieces])
    outputs = sum(one.shape[0] for one in pieces)
    return PackedWeight(first.form, torch.cat([one.rows for one in pieces]), (outputs, *first.shape[1:]), scale)


def _scale_of(weight: PackedWeight) -> torch.Tensor:
    return torch.ones(weight.rows.shape[0], 1) if weight.scale is None else weight.scale


def fp8(weight: torch.Tensor) -> PackedWeight:
    """Rounded to e4m3, with a scale for each output that uses its whole range."""
    return _packed(weight, E4M3, torch.finfo(torch.float8_e4m3fn).max)


def int8(weight: torch.Tensor) -> PackedWeight:
    """Rounded to whole numbers from -127 to 127, with a scale for each output."""
    return _packed(weight, INT8, 127.0)


def _packed(weight: torch.Tensor, form: ByteForm, largest: float) -> PackedWeight:
    numbers = weight.detach().flatten(1).float()
    scale = numbers.abs().amax(dim=1, keepdim=True) / largest
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    scaled = numbers / scale
    rounded = scaled.round() if form is INT8 else scaled
    rows = rounded.clamp(-largest, largest).to(form.kind).view(torch.uint8)
    return PackedWeight(form, rows, tuple(weight.shape), scale)
