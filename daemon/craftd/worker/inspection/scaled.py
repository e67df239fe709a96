"""Weights with scales beside them, as ComfyUI writes them: each scale has its weight, its shape and finite numbers.

What says how a layer is packed is JSON in a tensor: it is read as data, within limits.
"""

from __future__ import annotations

import math

from craft_protos.reasons import CraftError

from craftd import documents, scales
from craftd.documents import File
from craftd.refusal import corrupt, shown, unsupported
from craftd.safetensors import Header, Tensor
from craftd.worker.inspection.finite import is_finite

_LONGEST_MARK_BYTES = 4096
_NUMBERS = ("F32", "F16", "BF16")


def check(file: File, header: Header) -> None:
    """Raises CORRUPT_FILE, UNSUPPORTED_MODEL, NOT_FINITE."""
    if form := scales.foreign(header.shapes):
        raise _unknown(file, form)
    if scales.LAYERS_NOTE in header.metadata:
        _check_layers(file, header.metadata[scales.LAYERS_NOTE])
    for tensor in header.tensors:
        if tensor.name.endswith(scales.LAYER_MARK):
            _check_mark(file, header, tensor)
        elif tensor.name.endswith((*scales.WEIGHT_SCALES, *scales.INPUT_SCALES)):
            _check_scale(file, header, tensor)


def _check_scale(file: File, header: Header, tensor: Tensor) -> None:
    layer = tensor.name.rpartition(".")[0]
    shape = header.shapes.get(f"{layer}.weight")
    if shape is None or not shape:
        raise corrupt(file.name, f"the weight that {shown(tensor.name)} is the scale of", "none")
    count = math.prod(tensor.shape)
    if tensor.dtype not in _NUMBERS or count not in (1, shape[0]):
        sides = "x".join(map(str, tensor.shape)) or "no side"
        what = f"the scale {shown(tensor.name)} is of {tensor.dtype} and {sides}"
        raise unsupported(file.name, f"{what}: craft reads one number of fp32, or one for each output")
    if not is_finite(tensor.dtype, file.read(header.offset + tensor.start, tensor.end - tensor.start)):
        message = f"{shown(file.name)}: the scale {shown(tensor.name)} holds NaN or infinity"
        raise CraftError("NOT_FINITE", message, "get the file again, or its bf16 version")


def _check_mark(file: File, header: Header, tensor: Tensor) -> None:
    if tensor.dtype != "U8" or tensor.end - tensor.start > _LONGEST_MARK_BYTES:
        raise corrupt(file.name, f"a short note in {shown(tensor.name)}", f"{tensor.end - tensor.start} bytes")
    text = file.read(header.offset + tensor.start, tensor.end - tensor.start)
    said = documents.parse(file.name, text, is_strict=True)
    _check_form(file, said)
    layer = tensor.name.removesuffix(scales.LAYER_MARK)
    if not any(f"{layer}{end}" in header.shapes for end in scales.WEIGHT_SCALES):
        raise corrupt(file.name, f"a scale of {shown(layer)}, as it says that it is scaled", "none")


def _check_layers(file: File, text: str) -> None:
    layers = documents.parse(file.name, text.encode("utf-8", "replace"), is_strict=True).get("layers")
    for said in layers.values() if isinstance(layers, dict) else ():
        _check_form(file, said)


def _check_form(file: File, said: object) -> None:
    if form := scales.unknown_form(said):
        raise _unknown(file, form)


def _unknown(file: File, form: str) -> CraftError:
    return unsupported(file.name, f"its weights are packed as {shown(form)}; use its bf16, fp8 or GGUF file")
