"""Tiny models as the front hands over models of parts: each network in one file, in the layouts that are exchanged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from safetensors.torch import load_file, save_file

from tests.worker import original_layout
from tests.worker.test_component_files import _z_image_names

LDM = "model.diffusion_model."


def write(source: Path, place: Path, *, layout: str = "diffusers", prefix: str = "") -> Path:
    """`place`: the folder of the same model, of component files. `prefix`: before the denoiser's names."""
    shutil.copytree(source, place, ignore=shutil.ignore_patterns("*.safetensors", "craft.json"))
    for path in source.glob("*/*.safetensors"):
        tensors = _original(source, path) if layout == "original" else load_file(path)
        named = {_before(path.parent.name, prefix) + name: one.contiguous() for name, one in tensors.items()}
        save_file(named, place / path.parent.name / "component.safetensors")
    return place


def _before(component: str, prefix: str) -> str:
    return prefix if component in ("transformer", "unet") else ""


def _original(source: Path, path: Path) -> original_layout.Tensors:
    """As its makers, and ComfyUI, name them."""
    tensors = load_file(path)
    kind = json.loads((source / "model_index.json").read_text())[path.parent.name][1]
    makers: dict[str, Callable[[], original_layout.Tensors]] = {
        "AutoencoderKL": lambda: original_layout._vae(source),
        "AutoencoderKLFlux2": lambda: _vae_in_patches(original_layout._vae(source)),
        "UNet2DConditionModel": lambda: original_layout._unet(source),
        "SD3Transformer2DModel": lambda: original_layout._sd3_transformer(tensors),
        "ZImageTransformer2DModel": lambda: _z_image_names(tensors),
        "CLIPTextModel": lambda: original_layout._clip(tensors, has_projection=True),
        "CLIPTextModelWithProjection": lambda: original_layout._clip(tensors, has_projection=True),
        "Qwen3Model": lambda: {f"model.{name}": one for name, one in tensors.items()},
    }
    return makers[kind]() if kind in makers else tensors


def _vae_in_patches(tensors: original_layout.Tensors) -> original_layout.Tensors:
    """FLUX.2's: two layers lie elsewhere, and what counts batches is left out."""
    moved = {"quant_conv.": "encoder.quant_conv.", "post_quant_conv.": "decoder.post_quant_conv."}
    found = {name: one for name, one in tensors.items() if not name.endswith("num_batches_tracked")}
    return {
        next((new + name.removeprefix(old) for old, new in moved.items() if name.startswith(old)), name): one
        for name, one in found.items()
    }
