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
        "Krea2Transformer2DModel": lambda: _krea2_names(tensors),
        "Qwen2_5_VLForConditionalGeneration": lambda: _without_a_name_of_its_own(tensors),
        "Qwen3VLModel": lambda: _without_a_name_of_its_own({f"model.{name}": one for name, one in tensors.items()}),
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


def _without_a_name_of_its_own(tensors: original_layout.Tensors) -> original_layout.Tensors:
    """A language model that sees, as it was published: the layers of words are the model's own."""
    names = {name: name.replace("model.language_model.", "model.") for name in tensors}
    return {names[name].replace("model.visual.", "visual."): one for name, one in tensors.items()}


_KREA2 = {
    "img_in.": "first.",
    "time_embed.linear_1.": "tmlp.0.",
    "time_embed.linear_2.": "tmlp.2.",
    "time_mod_proj.": "tproj.1.",
    "txt_in.norm.weight": "txtmlp.0.scale",
    "txt_in.linear_1.": "txtmlp.1.",
    "txt_in.linear_2.": "txtmlp.3.",
    "text_fusion.": "txtfusion.",
    "transformer_blocks.": "blocks.",
    "final_layer.norm.weight": "last.norm.scale",
    "final_layer.scale_shift_table": "last.modulation.lin",
    "final_layer.": "last.",
}
_KREA2_INSIDE = {
    ".attn.to_q.": ".attn.wq.",
    ".attn.to_k.": ".attn.wk.",
    ".attn.to_v.": ".attn.wv.",
    ".attn.to_out.0.": ".attn.wo.",
    ".attn.to_gate.": ".attn.gate.",
    ".attn.norm_q.weight": ".attn.qknorm.qnorm.scale",
    ".attn.norm_k.weight": ".attn.qknorm.knorm.scale",
    ".ff.": ".mlp.",
    ".norm1.weight": ".prenorm.scale",
    ".norm2.weight": ".postnorm.scale",
    ".scale_shift_table": ".mod.lin",
}


def _krea2_names(tensors: original_layout.Tensors) -> original_layout.Tensors:
    """A block's six modulation vectors are one."""
    made: original_layout.Tensors = {}
    for name, one in tensors.items():
        old, new = next((pair for pair in _KREA2.items() if name.startswith(pair[0])), ("", ""))
        theirs = new + name.removeprefix(old)
        for ours, other in _KREA2_INSIDE.items():
            theirs = theirs.replace(ours, other)
        made[theirs] = one.flatten() if theirs.endswith(".mod.lin") and theirs.startswith("blocks.") else one
    return made
