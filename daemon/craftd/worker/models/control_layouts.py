"""Control models' files alone: their tensors by diffusers' names, and what their networks are made with.

Names and shapes say it, as diffusers' scripts and ComfyUI's loaders read them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from diffusers.models.controlnets.controlnet import ControlNetModel

from craftd.worker.quantized import conversion
from craftd.worker.quantized.stored import Stored
from craftd.worker.quantized.weight import PackedWeight

_LAYERS = {"layers_per_block": 2}  # of each file in the original layout
_OF_XL = {"label_emb.0.0.": "add_embedding.linear_1.", "label_emb.0.2.": "add_embedding.linear_2."}
_HEADS = {768: 8}  # of Stable Diffusion 1, whatever the width; others have heads of 64 channels
_HEAD_WIDTH = 64
# A T2I-adapter's channels in -> the picture's, and the pixels along the side that they are taken from.
_TAKEN_APART = {64: (1, 8), 192: (3, 8), 256: (1, 16), 768: (3, 16)}
_XL_SIDE = 16
_ADAPTER = "adapter."
_REFINER, _BY_LAYERS, _Z_IMAGE_LAYERS = "control_noise_refiner.", "control_layers", 30
_BLOCKS = 2  # of each of a T2I-adapter's levels, in the original layout


@dataclass(frozen=True)
class Layout:
    """How a file of one class of networks is read. Both raise KeyError for one that lacks tensors.

    `named`: its tensors, and the file's name for errors -> the same by diffusers' names. `configured`: those -> config.
    """

    named: Callable[[dict[str, Stored], str], dict[str, Stored]]
    configured: Callable[[Mapping[str, Stored]], dict[str, Any]]


def _of_controlnet(tensors: Mapping[str, Stored]) -> dict[str, Any]:
    """What a network of these tensors, in diffusers' names, is made with: their names and shapes say it."""
    levels = range(_count(tensors, r"down_blocks\.(\d+)\."))
    widths = [int(tensors[f"down_blocks.{level}.resnets.0.conv1.weight"].shape[0]) for level in levels]
    attends = [f"down_blocks.{level}.attentions.0.proj_in.weight" in tensors for level in levels]
    hint = _count(tensors, r"controlnet_cond_embedding\.blocks\.(\d+)\.") // 2
    text = next((int(one.shape[-1]) for name, one in tensors.items() if name.endswith("attn2.to_k.weight")), 0)
    middle = _count(tensors, r"mid_block\.attentions\.0\.transformer_blocks\.(\d+)\.")
    deep = [_count(tensors, rf"down_blocks\.{level}\.attentions\.0\.transformer_blocks\.(\d+)\.") for level in levels]
    linear = next((len(one.shape) == 2 for name, one in tensors.items() if name.endswith("proj_in.weight")), False)
    config: dict[str, Any] = {
        "in_channels": int(tensors["conv_in.weight"].shape[1]),
        "conditioning_channels": int(tensors["controlnet_cond_embedding.conv_in.weight"].shape[1]),
        "block_out_channels": widths,
        "down_block_types": ["CrossAttnDownBlock2D" if one else "DownBlock2D" for one in attends],
        "mid_block_type": "UNetMidBlock2DCrossAttn" if middle else "UNetMidBlock2D",
        "layers_per_block": _count(tensors, r"down_blocks\.0\.resnets\.(\d+)\."),
        "cross_attention_dim": text,
        "transformer_layers_per_block": [*(max(1, depth) for depth in deep[:-1]), middle or max(1, deep[-1])],
        "attention_head_dim": _HEADS.get(text) or [max(1, width // _HEAD_WIDTH) for width in widths],
        "use_linear_projection": linear,
        "conditioning_embedding_out_channels": [
            int(tensors["controlnet_cond_embedding.conv_in.weight"].shape[0]),
            *(int(tensors[f"controlnet_cond_embedding.blocks.{2 * n + 1}.weight"].shape[0]) for n in range(hint)),
        ],
    }
    told = tensors.get("add_embedding.linear_1.weight")
    if told is not None:  # the size and the prompt as a whole, as Stable Diffusion XL has it
        config |= {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": int(told.shape[1]),
        }
    return config


def _controlnet_named(tensors: dict[str, Stored], name: str) -> dict[str, Stored]:
    return tensors if "controlnet_mid_block.weight" in tensors else _converted(tensors, name)


def _converted(tensors: dict[str, Stored], name: str) -> dict[str, Stored]:
    """From the original layout; diffusers' converter leaves out what only Stable Diffusion XL's have."""
    kind: Any = ControlNetModel
    made = conversion.converted(kind, _LAYERS, {"controlnet_mid_block.weight"}, tensors, name)
    for theirs, ours in _OF_XL.items():
        made |= {key.replace(theirs, ours): one for key, one in tensors.items() if key.startswith(theirs)}
    return made


def _adapter_named(tensors: dict[str, Stored], name: str) -> dict[str, Stored]:
    """The original has the blocks of all levels in one row; the light one has the blocks of each by another name."""
    bare = {key.removeprefix(_ADAPTER): one for key, one in tensors.items()}
    is_light = "conv_in.weight" not in bare
    if "body.0.resnets.0.block1.weight" in bare:
        return {_ADAPTER + key: one for key, one in bare.items()}
    if is_light:
        return {_ADAPTER + key.replace(".body.", ".resnets."): one for key, one in bare.items()}
    return {_ADAPTER + re.sub(r"^body\.(\d+)\.(\w+)", _of_level, key): one for key, one in bare.items()}


def _of_level(found: re.Match[str]) -> str:
    level, block = divmod(int(found[1]), _BLOCKS)
    within = f"resnets.{block}.{found[2]}" if found[2].startswith("block") else found[2]
    return f"body.{level}.{within}"


def _of_adapter(tensors: Mapping[str, Stored]) -> dict[str, Any]:
    levels = range(_count(tensors, r"adapter\.body\.(\d+)\."))
    is_light = "adapter.conv_in.weight" not in tensors
    first = "adapter.body.0.in_conv.weight" if is_light else "adapter.conv_in.weight"
    channels, side = _TAKEN_APART[int(tensors[first].shape[1])]
    last = "out_conv" if is_light else "resnets.0.block1"
    widths = [int(tensors[f"adapter.body.{level}.{last}.weight"].shape[0]) for level in levels]
    return {
        "in_channels": channels,
        "channels": widths[:-1] if is_light else widths,  # the light one has its last level twice
        "num_res_blocks": _count(tensors, r"adapter\.body\.0\.resnets\.(\d+)\."),
        "downscale_factor": side,
        "adapter_type": "light_adapter" if is_light else "full_adapter_xl" if side == _XL_SIDE else "full_adapter",
    }


def _count(tensors: Mapping[str, Stored], pattern: str) -> int:
    """One more than the highest number that the names have there."""
    numbers = (int(match[1]) for name in tensors if (match := re.match(pattern, name)))
    return max(numbers, default=-1) + 1


def _as_it_is(tensors: dict[str, Stored], _name: str) -> dict[str, Stored]:
    return tensors


def _of_sd3(tensors: Mapping[str, Stored]) -> dict[str, Any]:
    """Those without words are of the large model alone: they are told of the prompt as a whole, and have the shift."""
    picture, words = tensors["pos_embed_input.proj.weight"], tensors.get("context_embedder.weight")
    places, layers = tensors.get("pos_embed.pos_embed"), range(_count(tensors, r"transformer_blocks\.(\d+)\."))
    width, head = int(picture.shape[0]), 64
    return {
        "patch_size": int(picture.shape[2]),
        "in_channels": int(picture.shape[1]),
        "num_layers": len(layers),
        "attention_head_dim": head,
        "num_attention_heads": width // head,
        "joint_attention_dim": None if words is None else int(words.shape[1]),
        "caption_projection_dim": width if words is None else int(words.shape[0]),
        "pooled_projection_dim": int(tensors["time_text_embed.text_embedder.linear_1.weight"].shape[1]),
        "pos_embed_max_size": 1 if places is None else math.isqrt(int(places.shape[1])),
        "dual_attention_layers": [one for one in layers if f"transformer_blocks.{one}.attn2.to_q.weight" in tensors],
        "qk_norm": "rms_norm" if "transformer_blocks.0.attn.norm_q.weight" in tensors else None,
        "use_pos_embed": places is not None,
        "force_zeros_for_pooled_projection": words is not None,
    }


def _of_qwen(tensors: Mapping[str, Stored]) -> dict[str, Any]:
    width, channels = (int(side) for side in tensors["img_in.weight"].shape)
    head = int(tensors["transformer_blocks.0.attn.norm_q.weight"].shape[0])
    return {
        "in_channels": channels,
        "num_layers": _count(tensors, r"transformer_blocks\.(\d+)\."),
        "attention_head_dim": head,
        "num_attention_heads": width // head,
        "joint_attention_dim": int(tensors["txt_in.weight"].shape[1]),
    }


def _z_image_named(tensors: dict[str, Stored], _name: str) -> dict[str, Stored]:
    """Those of 2.0 have refiners that were not trained, whose way in is noughts: diffusers leaves them out, too."""
    if _z_image_refines(tensors) != _BY_LAYERS:
        return tensors
    return {key: one for key, one in tensors.items() if not key.startswith(_REFINER)}


def _z_image_refines(tensors: Mapping[str, Stored]) -> str | None:
    """How it comes from the picture to its layers: three forms have been published."""
    if not any(key.startswith("control_layers.14.") for key in tensors):
        return None
    before = tensors.get(f"{_REFINER}0.before_proj.weight")
    is_trained = before is not None and (isinstance(before, PackedWeight) or bool(before.any()))
    return "control_noise_refiner" if is_trained else _BY_LAYERS


def _of_z_image(tensors: Mapping[str, Stored]) -> dict[str, Any]:
    width, taken = (int(side) for side in tensors["control_all_x_embedder.2-1.weight"].shape)
    layers, refines = _count(tensors, r"control_layers\.(\d+)\."), _z_image_refines(tensors)
    head = int(tensors["control_layers.0.attention.norm_q.weight"].shape[0])
    return {
        "control_layers_places": [layer * (_Z_IMAGE_LAYERS // layers) for layer in range(layers)],
        "control_refiner_layers_places": [0, 1] if refines else [],
        "control_in_dim": taken // 4,
        "add_control_noise_refiner": refines,
        "dim": width,
        "n_heads": width // head,
        "n_kv_heads": width // head,
    }


def _of_flux(tensors: Mapping[str, Stored]) -> dict[str, Any]:
    width, channels = (int(side) for side in tensors["x_embedder.weight"].shape)
    head = int(tensors["transformer_blocks.0.attn.norm_q.weight"].shape[0])
    modes, hint = tensors.get("controlnet_mode_embedder.weight"), tensors.get("input_hint_block.conv_out.weight")
    return {
        "patch_size": 1 if hint is None else math.isqrt(channels // int(hint.shape[0])),
        "in_channels": channels,
        "num_layers": _count(tensors, r"transformer_blocks\.(\d+)\."),
        "num_single_layers": _count(tensors, r"single_transformer_blocks\.(\d+)\."),
        "attention_head_dim": head,
        "num_attention_heads": width // head,
        "joint_attention_dim": int(tensors["context_embedder.weight"].shape[1]),
        "pooled_projection_dim": int(tensors["time_text_embed.text_embedder.linear_1.weight"].shape[1]),
        "guidance_embeds": "time_text_embed.guidance_embedder.linear_1.weight" in tensors,
        "num_mode": None if modes is None else int(modes.shape[0]),
        "conditioning_embedding_channels": None if hint is None else int(hint.shape[0]),
    }


CONTROLNET = Layout(_controlnet_named, _of_controlnet)
T2I_ADAPTER = Layout(_adapter_named, _of_adapter)
FLUX = Layout(_as_it_is, _of_flux)
SD3 = Layout(_as_it_is, _of_sd3)
QWEN = Layout(_as_it_is, _of_qwen)
Z_IMAGE = Layout(_z_image_named, _of_z_image)
