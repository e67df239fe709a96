"""Networks' tensors in the forms that files have: fp8 casts, fp8 with scales, GGUF. And what these stand for."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

Tensors = dict[str, torch.Tensor]

LARGEST = 448.0  # e4m3's


def layers(tensors: Mapping[str, torch.Tensor]) -> list[str]:
    """What quantized files have packed: layers' weights, but for norms and embeddings."""
    return [
        name
        for name, tensor in tensors.items()
        if name.endswith(".weight") and tensor.ndim > 1 and "norm" not in name and "embed_tokens" not in name
    ]


def cast(tensors: Mapping[str, torch.Tensor]) -> Tensors:
    """All weights of layers as they are, in e4m3."""
    chosen = set(layers(tensors))
    return {name: one.to(torch.float8_e4m3fn) if name in chosen else one for name, one in tensors.items()}


def scaled(tensors: Mapping[str, torch.Tensor], style: str = "scale_weight", prefix: str = "") -> Tensors:
    """As ComfyUI has them. `style`: "scale_weight" with a mark for all, "weight_scale" with one for each layer."""
    made: Tensors = {}
    chosen = set(layers(tensors))
    for name, one in tensors.items():
        if name not in chosen:
            made[prefix + name] = one
            continue
        layer, scale = prefix + name.removesuffix(".weight"), one.abs().max() / LARGEST
        made[f"{layer}.weight"] = (one / scale).to(torch.float8_e4m3fn)
        made[f"{layer}.{style}"] = scale.to(torch.float32)
        if style == "scale_weight":
            made[f"{layer}.scale_input"] = torch.tensor(1.0)
        else:
            said = json.dumps({"format": "float8_e4m3fn"}).encode()
            made[f"{layer}.comfy_quant"] = torch.tensor(list(said), dtype=torch.uint8)
    if style == "scale_weight":
        made[f"{prefix}scaled_fp8"] = torch.zeros(2, dtype=torch.float8_e4m3fn)
    return made


def dense(tensors: Mapping[str, torch.Tensor]) -> Tensors:
    """What fp8 tensors stand for, by their definition: fp8 x scale."""
    made: Tensors = {}
    for name, one in tensors.items():
        if name.endswith((".scale_weight", ".weight_scale", ".scale_input", ".comfy_quant", "scaled_fp8")):
            continue
        layer = name.removesuffix(".weight")
        scale = tensors.get(f"{layer}.scale_weight", tensors.get(f"{layer}.weight_scale"))
        made[name] = one.float() if scale is None else one.float() * scale
    return made


def save(tensors: Mapping[str, torch.Tensor], path: Path) -> Path:
    save_file({name: one.clone().contiguous() for name, one in tensors.items()}, path)
    return path


def write_gguf(tensors: Mapping[str, torch.Tensor], path: Path, kind: str, arch: str = "flux") -> Tensors:
    """Writes layers' weights in that kind of blocks, what does not fit them in F16, all else in F32.

    Gives what the file stands for, unpacked by the gguf package.
    """
    import gguf
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
    from gguf.quants import dequantize, quantize

    block = GGMLQuantizationType[kind]
    writer: Any = gguf.GGUFWriter(path, arch)
    chosen, meant = set(layers(tensors)), {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, one in tensors.items():
            numbers = one.float().numpy()
            form = GGMLQuantizationType.F32
            if name in chosen:
                fits = numbers.shape[-1] % GGML_QUANT_SIZES[block][0] == 0
                form = block if fits else GGMLQuantizationType.F16
            data = quantize(numbers, form)
            writer.add_tensor(name, data, raw_dtype=form)
            meant[name] = torch.from_numpy(dequantize(data, form).copy()).view(one.shape)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return meant
