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

_LAYERS = {"layers_per_block": 2}  # of each file in the original layout
_OF_XL = {"label_emb.0.0.": "add_embedding.linear_1.", "label_emb.0.2.": "add_embedding.linear_2."}
_HEADS = {768: 8}  # of Stable Diffusion 1, whatever the width; others have heads of 64 channels
_HEAD_WIDTH = 64
# A T2I-adapter's channels in -> the picture's, and the pixels along the side that they are taken from.
_TAKEN_APART = {64: (1, 8), 192: (3, 8), 256: (1, 16), 768: (3, 16)}
_XL_SIDE = 16
_ADAPTER = "adapter."
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
