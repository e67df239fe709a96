"""Tiny models as checkpoints of one file: diffusers' names turned into the original ones, which converters undo.

The names are those of huggingface/diffusers' convert_diffusers_to_original_*.py, for any number of blocks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

Tensors = dict[str, torch.Tensor]


def write(folder: Path, target: Path, *, layout: str = "original") -> Path:
    """`target`, one file with all the weights of the diffusers model in `folder`."""
    pipeline = json.loads((folder / "model_index.json").read_text())["_class_name"]
    make = _MAKERS[pipeline] if layout == "original" else _together
    save_file({name: tensor.clone().contiguous() for name, tensor in make(folder).items()}, target)
    return target


def _together(folder: Path) -> Tensors:
    """diffusers' layout: every part under its name."""
    return {
        f"{path.parent.name}.{name}": tensor
        for path in folder.glob("*/*.safetensors")
        for name, tensor in load_file(path).items()
    }


def _sd(folder: Path) -> Tensors:
    width = json.loads((folder / "text_encoder/config.json").read_text())["hidden_act"]
    text = _clip if width == "quick_gelu" else _open_clip
    prefix = "cond_stage_model.transformer." if text is _clip else "cond_stage_model.model."
    return {
        **_prefixed("model.diffusion_model.", _unet(folder)),
        **_prefixed("first_stage_model.", _vae(folder)),
        **_prefixed(prefix, text(_part(folder, "text_encoder"))),
    }


def _sdxl(folder: Path) -> Tensors:
    return {
        **_prefixed("model.diffusion_model.", _unet(folder)),
        **_prefixed("first_stage_model.", _vae(folder)),
        **_prefixed("conditioner.embedders.0.transformer.", _clip(_part(folder, "text_encoder"))),
        **_prefixed("conditioner.embedders.1.model.", _open_clip(_part(folder, "text_encoder_2"))),
    }


def _sd3(folder: Path) -> Tensors:
    found = {
        **_prefixed("model.diffusion_model.", _sd3_transformer(_part(folder, "transformer"))),
        **_prefixed("first_stage_model.", _vae(folder)),
        **_prefixed("text_encoders.clip_l.transformer.", _clip(_part(folder, "text_encoder"))),
        **_prefixed("text_encoders.clip_g.transformer.", _clip(_part(folder, "text_encoder_2"), has_projection=True)),
    }
    if (folder / "text_encoder_3").is_dir():
        found |= _prefixed("text_encoders.t5xxl.transformer.", _part(folder, "text_encoder_3"))
    return found


def _flux(folder: Path) -> Tensors:
    return flux(folder, _part(folder, "transformer"))


def flux(folder: Path, transformer: Tensors) -> Tensors:
    """As checkpoints with every part are, which the web exchanges: this transformer, the folder's other parts."""
    return {
        **_prefixed("model.diffusion_model.", _flux_transformer(transformer)),
        **_prefixed("vae.", _vae(folder)),
        **_prefixed("text_encoders.clip_l.transformer.", _clip(_part(folder, "text_encoder"))),
        **_prefixed("text_encoders.t5xxl.transformer.", _part(folder, "text_encoder_2")),
    }


_MAKERS: dict[str, Callable[[Path], Tensors]] = {
    "StableDiffusionPipeline": _sd,
    "StableDiffusionXLPipeline": _sdxl,
    "StableDiffusion3Pipeline": _sd3,
    "FluxPipeline": _flux,
}


def _part(folder: Path, name: str) -> Tensors:
    (path,) = (folder / name).glob("*.safetensors")
    return load_file(path)


def _prefixed(prefix: str, tensors: Tensors) -> Tensors:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def _renamed(name: str, pairs: list[tuple[str, str]]) -> str:
    for pattern, replacement in pairs:
        name = re.sub(pattern, replacement, name)
    return name


# The UNet

_RESNET = [
    (r"\.norm1\.", ".in_layers.0."),
    (r"\.conv1\.", ".in_layers.2."),
    (r"\.norm2\.", ".out_layers.0."),
    (r"\.conv2\.", ".out_layers.3."),
    (r"\.time_emb_proj\.", ".emb_layers.1."),
    (r"\.conv_shortcut\.", ".skip_connection."),
]
_UNET_ENDS = [
    (r"^time_embedding\.linear_1", "time_embed.0"),
    (r"^time_embedding\.linear_2", "time_embed.2"),
    (r"^add_embedding\.linear_1", "label_emb.0.0"),
    (r"^add_embedding\.linear_2", "label_emb.0.2"),
    (r"^conv_in", "input_blocks.0.0"),
    (r"^conv_norm_out", "out.0"),
    (r"^conv_out", "out.2"),
    (r"^mid_block\.attentions\.0", "middle_block.1"),
]


_CONTROL_ENDS = [
    *_UNET_ENDS,
    (r"^controlnet_down_blocks\.(\d+)", r"zero_convs.\1.0"),
    (r"^controlnet_mid_block", "middle_block_out.0"),
    (r"^controlnet_cond_embedding\.conv_in", "input_hint_block.0"),
    (r"^controlnet_cond_embedding\.conv_out", "input_hint_block.14"),
]


def control(network: Any) -> Tensors:
    """A ControlNet's tensors, of three strides in its hint."""
    config = {"layers_per_block": network.config.layers_per_block, "up_block_types": []}

    def named(name: str) -> str:
        if found := re.match(r"controlnet_cond_embedding\.blocks\.(\d)(\..*)", name):
            return f"input_hint_block.{2 * (int(found[1]) + 1)}{found[2]}"
        return _renamed(name, _CONTROL_ENDS)

    return _of_unet(network.state_dict(), config, named)


def adapter(network: Any) -> Tensors:
    """A T2I-adapter's tensors: two blocks of each level in one row, or the light one's, level by level."""

    def named(name: str) -> str:
        found = re.match(r"body\.(\d+)\.(resnets\.(\d+)\.)?(.*)", name)
        if found is None:
            return name
        if network.config.adapter_type == "light_adapter":
            return name.replace(".resnets.", ".body.")
        return f"body.{2 * int(found[1]) + int(found[3] or 0)}.{found[4]}"

    return {named(name.removeprefix("adapter.")): one.clone() for name, one in network.state_dict().items()}


def _unet(folder: Path) -> Tensors:
    config = json.loads((folder / "unet/config.json").read_text())
    return _of_unet(_part(folder, "unet"), config, lambda name: _renamed(name, _UNET_ENDS))


def _of_unet(tensors: Tensors, config: dict[str, Any], ended: Callable[[str], str]) -> Tensors:
    layers, ups = config["layers_per_block"], config["up_block_types"]

    def place(name: str) -> str:
        if found := re.match(r"down_blocks\.(\d+)\.(resnets|attentions)\.(\d+)(\..*)", name):
            at = (layers + 1) * int(found[1]) + int(found[3]) + 1
            return f"input_blocks.{at}.{int(found[2] == 'attentions')}{found[4]}"
        if found := re.match(r"down_blocks\.(\d+)\.downsamplers\.0\.conv(\..*)", name):
            return f"input_blocks.{(layers + 1) * (int(found[1]) + 1)}.0.op{found[2]}"
        if found := re.match(r"up_blocks\.(\d+)\.(resnets|attentions)\.(\d+)(\..*)", name):
            at = (layers + 1) * int(found[1]) + int(found[3])
            return f"output_blocks.{at}.{int(found[2] == 'attentions')}{found[4]}"
        if found := re.match(r"up_blocks\.(\d+)\.upsamplers\.0(\..*)", name):
            at, kind = (layers + 1) * int(found[1]) + layers, ups[int(found[1])]
            return f"output_blocks.{at}.{1 + int(kind.startswith('CrossAttn'))}{found[2]}"
        if found := re.match(r"mid_block\.resnets\.(\d)(\..*)", name):
            return f"middle_block.{2 * int(found[1])}{found[2]}"
        return ended(name)

    return {_renamed(place(name), _RESNET if ".resnets." in name else []): tensor for name, tensor in tensors.items()}


# The autoencoder

_VAE = [
    (r"\.conv_shortcut\.", ".nin_shortcut."),
    (r"\.conv_norm_out\.", ".norm_out."),
    (r"mid_block\.attentions\.0\.group_norm", "mid.attn_1.norm"),
    (r"mid_block\.attentions\.0\.to_([qkv])", r"mid.attn_1.\1"),
    (r"mid_block\.attentions\.0\.to_out\.0", "mid.attn_1.proj_out"),
    (r"mid_block\.resnets\.0\.", "mid.block_1."),
    (r"mid_block\.resnets\.1\.", "mid.block_2."),
    (r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2"),
    (r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample"),
]


def _vae(folder: Path) -> Tensors:
    last = len(json.loads((folder / "vae/config.json").read_text())["block_out_channels"]) - 1

    def up(name: str) -> str:
        name = re.sub(
            r"up_blocks\.(\d)\.resnets\.(\d)", lambda found: f"up.{last - int(found[1])}.block.{found[2]}", name
        )
        return re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda found: f"up.{last - int(found[1])}.upsample", name)

    def shaped(name: str, tensor: torch.Tensor) -> torch.Tensor:
        is_attention = ".attentions.0.to_" in name and name.endswith(".weight")
        return tensor[:, :, None, None] if is_attention else tensor

    return {_renamed(up(name), _VAE): shaped(name, tensor) for name, tensor in _part(folder, "vae").items()}


# Text encoders


def _clip(tensors: Tensors, *, has_projection: bool = False) -> Tensors:
    """As transformers named it when the models were published."""
    left_out = ("position_ids",) if has_projection else ("position_ids", "text_projection.weight")
    own = {name: tensor for name, tensor in tensors.items() if not name.endswith(left_out)}
    return {_wrapped(name): tensor for name, tensor in own.items()}


def _wrapped(name: str) -> str:
    return name if name.startswith(("text_model.", "text_projection.")) else f"text_model.{name}"


_OPEN_CLIP = [
    (r"^text_model\.", ""),
    (r"^encoder\.layers\.", "transformer.resblocks."),
    (r"^embeddings\.token_embedding\.weight", "token_embedding.weight"),
    (r"^embeddings\.position_embedding\.weight", "positional_embedding"),
    (r"^final_layer_norm\.", "ln_final."),
    (r"\.layer_norm1\.", ".ln_1."),
    (r"\.layer_norm2\.", ".ln_2."),
    (r"\.mlp\.fc1\.", ".mlp.c_fc."),
    (r"\.mlp\.fc2\.", ".mlp.c_proj."),
    (r"\.self_attn\.out_proj\.", ".attn.out_proj."),
]


def _open_clip(tensors: Tensors) -> Tensors:
    found: Tensors = {}
    for name, tensor in tensors.items():
        new = _renamed(name, _OPEN_CLIP)
        if new == "text_projection.weight":
            found["text_projection"] = tensor.T
        elif merged := re.match(r"(.*)\.self_attn\.q_proj\.(weight|bias)", new):
            three = [tensors[name.replace("q_proj", f"{one}_proj")] for one in "qkv"]
            found[f"{merged[1]}.attn.in_proj_{merged[2]}"] = torch.cat(three)
        elif "self_attn" not in new and not new.endswith("position_ids"):
            found[new] = tensor
    return found


# Stable Diffusion 3's transformer


_SD3_ENDS = [
    (r"^pos_embed\.pos_embed", "pos_embed"),
    (r"^pos_embed\.proj", "x_embedder.proj"),
    (r"^time_text_embed\.timestep_embedder\.linear_1", "t_embedder.mlp.0"),
    (r"^time_text_embed\.timestep_embedder\.linear_2", "t_embedder.mlp.2"),
    (r"^time_text_embed\.text_embedder\.linear_1", "y_embedder.mlp.0"),
    (r"^time_text_embed\.text_embedder\.linear_2", "y_embedder.mlp.2"),
    (r"^proj_out", "final_layer.linear"),
    (r"^norm_out\.linear", "final_layer.adaLN_modulation.1"),
]
_SD3_BLOCK = [
    (r"^attn\.to_out\.0", "x_block.attn.proj"),
    (r"^attn\.to_add_out", "context_block.attn.proj"),
    (r"^attn\.norm_q", "x_block.attn.ln_q"),
    (r"^attn\.norm_k", "x_block.attn.ln_k"),
    (r"^attn\.norm_added_q", "context_block.attn.ln_q"),
    (r"^attn\.norm_added_k", "context_block.attn.ln_k"),
    (r"^norm1\.linear", "x_block.adaLN_modulation.1"),
    (r"^norm1_context\.linear", "context_block.adaLN_modulation.1"),
    (r"^ff\.net\.0\.proj", "x_block.mlp.fc1"),
    (r"^ff\.net\.2", "x_block.mlp.fc2"),
    (r"^ff_context\.net\.0\.proj", "context_block.mlp.fc1"),
    (r"^ff_context\.net\.2", "context_block.mlp.fc2"),
]
_SD3_QKV = {"attn.to_q": ("x_block", "attn.to_{}"), "attn.add_q_proj": ("context_block", "attn.add_{}_proj")}


def _sd3_transformer(tensors: Tensors) -> Tensors:
    found: Tensors = {}
    blocks = {name.split(".")[1] for name in tensors if name.startswith("transformer_blocks.")}
    last = max(blocks, key=int)
    for name, tensor in tensors.items():
        if not name.startswith("transformer_blocks."):
            found[_renamed(name, _SD3_ENDS)] = _swapped(tensor) if name.startswith("norm_out.linear") else tensor
            continue
        _, number, rest = name.split(".", 2)
        layer, _, kind = rest.rpartition(".")
        if layer in _SD3_QKV:
            block, pattern = _SD3_QKV[layer]
            three = [tensors[f"transformer_blocks.{number}.{pattern.format(one)}.{kind}"] for one in "qkv"]
            found[f"joint_blocks.{number}.{block}.attn.qkv.{kind}"] = torch.cat(three)
        elif not re.match(r"attn\.(to_[kv]|add_[kv]_proj)", rest):
            is_swapped = number == last and rest.startswith("norm1_context.linear")
            found[f"joint_blocks.{number}.{_renamed(rest, _SD3_BLOCK)}"] = _swapped(tensor) if is_swapped else tensor
    return found


def _swapped(tensor: torch.Tensor) -> torch.Tensor:
    """Shift before scale, where diffusers has scale before shift."""
    first, second = tensor.chunk(2)
    return torch.cat([second, first])


# FLUX.1's transformer, as in black-forest-labs/flux


_FLUX_ENDS = [
    (r"^time_text_embed\.timestep_embedder\.", "time_in."),
    (r"^time_text_embed\.text_embedder\.", "vector_in."),
    (r"^time_text_embed\.guidance_embedder\.", "guidance_in."),
    (r"\.linear_1\.", ".in_layer."),
    (r"\.linear_2\.", ".out_layer."),
    (r"^context_embedder\.", "txt_in."),
    (r"^x_embedder\.", "img_in."),
    (r"^proj_out\.", "final_layer.linear."),
    (r"^norm_out\.linear\.", "final_layer.adaLN_modulation.1."),
]
_FLUX_DOUBLE = [
    (r"^norm1\.linear\.", "img_mod.lin."),
    (r"^norm1_context\.linear\.", "txt_mod.lin."),
    (r"^attn\.to_out\.0\.", "img_attn.proj."),
    (r"^attn\.to_add_out\.", "txt_attn.proj."),
    (r"^attn\.norm_q\.weight", "img_attn.norm.query_norm.scale"),
    (r"^attn\.norm_k\.weight", "img_attn.norm.key_norm.scale"),
    (r"^attn\.norm_added_q\.weight", "txt_attn.norm.query_norm.scale"),
    (r"^attn\.norm_added_k\.weight", "txt_attn.norm.key_norm.scale"),
    (r"^ff\.net\.0\.proj\.", "img_mlp.0."),
    (r"^ff\.net\.2\.", "img_mlp.2."),
    (r"^ff_context\.net\.0\.proj\.", "txt_mlp.0."),
    (r"^ff_context\.net\.2\.", "txt_mlp.2."),
]
_FLUX_SINGLE = [
    (r"^norm\.linear\.", "modulation.lin."),
    (r"^proj_out\.", "linear2."),
    (r"^attn\.norm_q\.weight", "norm.query_norm.scale"),
    (r"^attn\.norm_k\.weight", "norm.key_norm.scale"),
]
_FLUX_BLOCKS = {"transformer_blocks": ("double_blocks", _FLUX_DOUBLE)}
_FLUX_BLOCKS |= {"single_transformer_blocks": ("single_blocks", _FLUX_SINGLE)}
_FLUX_JOINED = {  # the first of those that the original has side by side
    "transformer_blocks.attn.to_q": ("img_attn.qkv", ("attn.to_q", "attn.to_k", "attn.to_v")),
    "transformer_blocks.attn.add_q_proj": ("txt_attn.qkv", ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj")),
    "single_transformer_blocks.attn.to_q": ("linear1", ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")),
}


def _flux_transformer(tensors: Tensors) -> Tensors:
    found: Tensors = {}
    for name, tensor in tensors.items():
        kind, _, after = name.partition(".")
        if kind not in _FLUX_BLOCKS:
            found[_renamed(name, _FLUX_ENDS)] = _swapped(tensor) if kind == "norm_out" else tensor
            continue
        number, _, rest = after.partition(".")
        layer, _, suffix = rest.rpartition(".")
        block, pairs = _FLUX_BLOCKS[kind]
        if joined := _FLUX_JOINED.get(f"{kind}.{layer}"):
            those = [tensors[f"{kind}.{number}.{other}.{suffix}"] for other in joined[1]]
            found[f"{block}.{number}.{joined[0]}.{suffix}"] = torch.cat(those)
        elif not re.match(r"attn\.(to_[kv]|add_[kv]_proj)\.|proj_mlp\.", rest):
            found[f"{block}.{number}.{_renamed(rest, pairs)}"] = tensor
    return found
