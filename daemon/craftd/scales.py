"""How files of packed weights name what lies beside a weight: ComfyUI's names, and those of forms that craft lacks.

https://github.com/comfyanonymous/ComfyUI/blob/master/QUANTIZATION.md
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

WEIGHT_SCALES = (".weight_scale", ".scale_weight")
INPUT_SCALES = (".input_scale", ".scale_input")
MARK = "scaled_fp8"  # the last word of a tensor's name: all fp8 weights beside it have scales
LAYER_MARK = ".comfy_quant"  # JSON about one layer
LAYERS_NOTE = "_quantization_metadata"  # JSON about all of them, in the header
FORMATS = ("float8_e4m3fn", "float8_e5m2", "int8_tensorwise")  # with one scale a weight, or one an output
_HARMLESS = {"format", "full_precision_matrix_mult"}  # keys that change nothing of what a weight stands for

# Ends of names -> the form that has them.
_FOREIGN = {
    ".weight_scale_2": "nvfp4",
    ".pre_quant_scale": "weights for inputs that are scaled too",
    ".absmax": "bitsandbytes",
    ".quant_map": "bitsandbytes",
    ".wscales": "SVDQuant",
    ".smooth_factor": "SVDQuant",
    ".qweight": "SVDQuant or GPTQ",
}


def foreign(names: Iterable[str]) -> str:
    """The form of packed weights that craft cannot draw with, told by tensors' names; "" where there is none."""
    ends = tuple(_FOREIGN)
    found = next((name for name in names if name.endswith(ends)), "")
    return next((form for end, form in _FOREIGN.items() if found.endswith(end)), "")


def unknown_form(said: object) -> str:
    """What a layer's note says that craft cannot draw with: a format, or a key that it does not know; "" if nothing."""
    told: Mapping[object, object] = said if isinstance(said, dict) else {}
    kind = told.get("format")
    if not isinstance(kind, str) or kind not in FORMATS:
        return str(kind)
    other = next((key for key, value in told.items() if key not in _HARMLESS and value not in (None, False)), None)
    return "" if other is None else f"{kind} with {other}"
