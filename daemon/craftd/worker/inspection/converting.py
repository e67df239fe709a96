"""A pickled file's tensors, as the bytes of a safetensors file.

torch reads it in its restricted way, which builds tensors and plain values and calls nothing else, in a process that
may write no file, start nothing and see no network. Whoever started us writes what comes on stdout.
"""

from __future__ import annotations

import json
import math
import pickle
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from craft_protos.reasons import CraftError

from craftd.refusal import shown
from craftd.worker.inspection.tree import single

_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_INSIDE = ("state_dict", "model_state_dict", "params_ema", "params-ema", "params", "model", "net")
_EMBEDDING, _VECTORS = "string_to_param", "emb_params"  # as AUTOMATIC1111 pickles an embedding, and saves one safely
_DAMAGED = (*(RuntimeError, ValueError, KeyError, TypeError, EOFError, IndexError), AttributeError, OSError)

_BEGINNINGS = (b"PK", b"\x80")  # of a zip archive, as torch saves today, and of a pickle, as it did

Tensors = Mapping[str, torch.Tensor]


def read(path: Path) -> Tensors:
    """Those of a state dict, or of an embedding, by name. Raises UNSAFE_PATH, UNSAFE_FORMAT, CORRUPT_FILE."""
    file = single(path)
    try:
        with file.real.open("rb") as stream:  # by its bytes alone: of some names torch thinks more
            if not stream.read(2).startswith(_BEGINNINGS):
                message = f"{shown(path.name)} is no pickled file"
                raise CraftError("CORRUPT_FILE", message, "give one that torch saved: .pth, .pt, .ckpt, .bin")
            stream.seek(0)
            loaded = torch.load(stream, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as exc:
        message = f"{shown(path.name)} asks for more than tensors and plain values: it could run code"
        raise CraftError("UNSAFE_FORMAT", message, "do not open it with anything; get a safetensors file") from exc
    except _DAMAGED as exc:
        message = f"{shown(path.name)}: torch cannot read it ({type(exc).__name__})"
        raise CraftError("CORRUPT_FILE", message, "get the file again, or a safetensors one") from exc
    tensors = _tensors(loaded)
    if not tensors:
        message = f"{shown(path.name)}: no tensors by name are in it"
        raise CraftError("CORRUPT_FILE", message, "give a checkpoint, an upscaler or an embedding")
    _check(tensors, path.name, file.size_bytes)
    return tensors


def header(tensors: Tensors, metadata: Mapping[str, str] | None = None) -> bytes:
    """The beginning of the safetensors file."""
    told: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.numel() * tensor.element_size()
        told[name] = {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(told).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def pieces(tensors: Tensors) -> Iterator[bytes]:
    """The rest of it, a tensor at a time."""
    for tensor in tensors.values():
        yield tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def size_bytes(tensors: Tensors) -> int:
    """Of all the pieces."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def _tensors(loaded: object) -> dict[str, torch.Tensor]:
    """Of the innermost dictionary that is known to hold them."""
    if not isinstance(loaded, dict):
        return {}
    if isinstance(vectors := loaded.get(_EMBEDDING), dict):
        found = [one for one in vectors.values() if isinstance(one, torch.Tensor)]
        return {_VECTORS: found[0].detach()} if len(found) == 1 else {}
    for name in _INSIDE:
        if isinstance(loaded.get(name), dict):
            return _tensors(loaded[name])
    return {name: one.detach() for name, one in loaded.items() if isinstance(name, str) and _is_plain(one)}


def _is_plain(value: object) -> bool:
    return isinstance(value, torch.Tensor) and value.layout == torch.strided and value.device.type == "cpu"


def _check(tensors: Tensors, name: str, file_bytes: int) -> None:
    """Raises CORRUPT_FILE for what safetensors has no name for, and for tensors that are larger than their file."""
    for one, tensor in tensors.items():
        if tensor.dtype not in _DTYPES:
            message = f"{shown(name)}: the tensor {shown(one)} is of {tensor.dtype}, which safetensors files have not"
            raise CraftError("CORRUPT_FILE", message, "get a safetensors file")
    if sum(math.prod(one.shape) * one.element_size() for one in tensors.values()) > 4 * file_bytes:
        message = f"{shown(name)}: its tensors are many times as large as the file"
        raise CraftError("CORRUPT_FILE", message, "get the file again")
