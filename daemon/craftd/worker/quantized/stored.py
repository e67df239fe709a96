"""What a file of one network holds: numbers, and weights that are kept packed as they are there.

Three forms of packed weights: fp8 casts; fp8 with a scale beside each weight, by ComfyUI's names of it; GGUF.
The scales of inputs are for fp8 matrix products of some devices; here weights alone are packed.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Mapping
from pathlib import Path

import torch
from craft_protos.reasons import CraftError
from safetensors import safe_open

from craftd import gguf, scales
from craftd.refusal import corrupt, shown
from craftd.safetensors import Tensor
from craftd.worker.quantized.weight import BYTE_FORMS, BlockForm, PackedWeight, block_types

Stored = torch.Tensor | PackedWeight

_BESIDE = (*scales.WEIGHT_SCALES, *scales.INPUT_SCALES, scales.LAYER_MARK)
_PLAIN = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64}


def read(path: Path, name: str = "") -> dict[str, Stored]:
    """All of a safetensors or GGUF file. Raises CORRUPT_FILE, UNSUPPORTED_MODEL, NOT_FINITE."""
    name = name or path.name
    return _of_gguf(path, name) if gguf.is_gguf(path) else _of_safetensors(path, name)


def _of_safetensors(path: Path, name: str) -> dict[str, Stored]:
    with safe_open(path, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping
        notes = file.metadata() or {}
    return packed(tensors, notes, name)


def packed(tensors: Mapping[str, torch.Tensor], notes: Mapping[str, str], name: str) -> dict[str, Stored]:
    """Weights together with their scales; what only says how a layer is packed is left out."""
    _check_formats(tensors, notes, name)
    own = {key.removesuffix(end): key for end in scales.WEIGHT_SCALES for key in tensors if key.endswith(end)}
    found: dict[str, Stored] = {}
    for key, tensor in tensors.items():
        if key.rpartition(".")[2] == scales.MARK or key.endswith(_BESIDE):
            continue
        scale = own.pop(key.removesuffix(".weight"), "") if key.endswith(".weight") else ""
        found[key] = _stored(key, tensor, tensors[scale] if scale else None, name)
    if own:
        raise corrupt(name, f"the weight that {shown(next(iter(own.values())))} is the scale of", "none")
    _check_scaled(tensors, found, name)
    return found


def _stored(key: str, tensor: torch.Tensor, scale: torch.Tensor | None, name: str) -> Stored:
    """fp8 of one dimension is no weight of a layer; it becomes numbers."""
    form = BYTE_FORMS.get(tensor.dtype)
    if form is None or tensor.ndim < 2 or (tensor.dtype == torch.int8 and scale is None):
        return tensor if scale is None else _scaled(key, tensor, scale, name)
    rows = tensor.contiguous().view(torch.uint8).view(tensor.shape[0], -1)
    return PackedWeight(form, rows, tuple(tensor.shape), None if scale is None else _by_output(key, scale, rows, name))


def _scaled(key: str, tensor: torch.Tensor, scale: torch.Tensor, name: str) -> torch.Tensor:
    """A weight that is not packed and has a scale all the same: that is applied."""
    if not tensor.is_floating_point():
        raise _unsupported(name, f"{shown(key)} has a scale and is {tensor.dtype}")
    by_output = _by_output(key, scale, tensor, name).view(-1, *[1] * (tensor.ndim - 1))
    return (tensor.float() * by_output).to(torch.float32)


def _by_output(key: str, scale: torch.Tensor, weight: torch.Tensor, name: str) -> torch.Tensor:
    """One number, or one for each output -> outputs, 1. Raises UNSUPPORTED_MODEL, NOT_FINITE."""
    outputs = weight.shape[0]
    if scale.numel() not in (1, outputs) or (scale.numel() > 1 and max(scale.shape) != outputs):
        shape = "x".join(map(str, scale.shape))
        raise _unsupported(name, f"the scale of {shown(key)} is {shape}, neither one number nor one for each output")
    numbers = scale.float().flatten()
    if not torch.isfinite(numbers).all():
        raise CraftError(
            "NOT_FINITE", f"{shown(name)}: the scale of {shown(key)} is NaN or infinite", "get the file again"
        )
    return numbers.expand(outputs).reshape(outputs, 1).contiguous()


def _check_formats(tensors: Mapping[str, torch.Tensor], notes: Mapping[str, str], name: str) -> None:
    """Raises UNSUPPORTED_MODEL for layers that are packed in another way."""
    said: list[object] = [
        _said(tensor.numpy().tobytes()) for key, tensor in tensors.items() if key.endswith(scales.LAYER_MARK)
    ]
    layers = _said(notes.get(scales.LAYERS_NOTE, "").encode()).get("layers")
    said += list(layers.values()) if isinstance(layers, dict) else []
    form = scales.foreign(tensors) or next(filter(None, map(scales.unknown_form, said)), "")
    if form:
        raise _unsupported(name, f"its weights are packed as {shown(form)}", "use its bf16, fp16, fp8 or GGUF file")


def _said(text: bytes) -> dict[str, object]:
    try:
        found = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        return {"format": None}
    return found if isinstance(found, dict) else {"format": None}


def _check_scaled(tensors: Mapping[str, torch.Tensor], found: Mapping[str, Stored], name: str) -> None:
    """A file that says it is scaled has a scale for each of its fp8 weights. Raises CORRUPT_FILE."""
    prefixes = [key.removesuffix(scales.MARK) for key in tensors if key.rpartition(".")[2] == scales.MARK]
    layers = [f"{key.removesuffix(scales.LAYER_MARK)}.weight" for key in tensors if key.endswith(scales.LAYER_MARK)]
    for key, one in found.items():
        is_scaled = key in layers or (key.endswith(".weight") and any(key.startswith(prefix) for prefix in prefixes))
        if is_scaled and isinstance(one, PackedWeight) and one.scale is None:
            raise corrupt(name, f"a scale of {shown(key)}, as it says that it is scaled", "none")


def _of_gguf(path: Path, name: str) -> dict[str, Stored]:
    header = gguf.read(path)
    kinds = {tensor.dtype for tensor in header.tensors} - _PLAIN.keys() - block_types()
    if kinds:
        known = "one of Q4_0 to Q8_0, Q2_K to Q6_K, IQ4_NL or IQ4_XS"
        raise _unsupported(name, f"its weights are packed as {', '.join(sorted(kinds))}", f"get {known}")
    with path.open("rb") as stream:
        whole = torch.frombuffer(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY), dtype=torch.uint8)
    return {tensor.name: _of_blocks(whole, header.offset, tensor) for tensor in header.tensors}


def _of_blocks(whole: torch.Tensor, offset: int, tensor: Tensor) -> Stored:
    """Of one dimension, or laid out so that blocks reach over rows: numbers. Else packed as it is."""
    own = whole[offset + tensor.start : offset + tensor.end]
    if tensor.dtype in _PLAIN:
        return own.clone().view(_PLAIN[tensor.dtype]).view(tensor.shape)
    numbers, size = gguf.BLOCKS[tensor.dtype]
    form, blocks = BlockForm(tensor.dtype), own.view(-1, size)
    if len(tensor.shape) < 2 or (len(blocks) * numbers // tensor.shape[0]) % numbers:
        return PackedWeight(form, blocks, (len(blocks), numbers)).dense(torch.float32).view(tensor.shape)
    return PackedWeight(form, own.clone().view(tensor.shape[0], -1), tensor.shape)


def _unsupported(name: str, why: str, hint: str = "") -> CraftError:
    return CraftError("UNSUPPORTED_MODEL", f"{shown(name)}: {why}", hint or "use its bf16 or fp16 file")
