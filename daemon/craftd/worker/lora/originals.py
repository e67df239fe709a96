"""The layers' names in the programs that the models come from, which LoRA files often use.

The UNets of SD and SDXL (Stability's generative-models), SD3's MMDiT and FLUX.1's; there, one layer of the
original may be several of diffusers', whose outputs stand one after another.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from craftd.worker.lora.adapter import Layer


@dataclass(frozen=True)
class Part:
    """A layer of diffusers', and which of the original's outputs are its."""

    layer: str
    outputs: slice | None = None
    is_swapped: bool = False


def names(module: Any, layers: Mapping[str, Layer]) -> dict[str, tuple[Part, ...]]:
    """The original's names -> the layers they are here."""
    match type(module).__name__:
        case "UNet2DConditionModel":
            return {original: (Part(layer),) for original, layer in _unet(module.config, layers)}
        case "FluxTransformer2DModel":
            return _joined(_FLUX, _FLUX_BLOCKS, layers)
        case "SD3Transformer2DModel":
            return _joined(_SD3, _SD3_BLOCKS, layers)
        case _:
            return {}


_RESNET = {
    "conv1": "in_layers.2",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
_UNET = {
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}


def _unet(config: Any, layers: Mapping[str, Layer]) -> Iterator[tuple[str, str]]:
    depth = config.layers_per_block
    if not isinstance(depth, int):
        return
    for layer in layers:
        match layer.split("."):
            case ["down_blocks", block, kind, index, *rest]:
                number = 1 + int(block) * (depth + 1) + (depth if kind == "downsamplers" else int(index))
                yield _inside(f"input_blocks.{number}", kind, 0, rest), layer
            case ["mid_block", kind, index, *rest]:
                place = 1 if kind == "attentions" else 2 * int(index)
                yield f"middle_block.{place}.{_inner(kind, rest)}", layer
            case ["up_blocks", block, kind, index, *rest]:
                number = int(block) * (depth + 1) + (depth if kind == "upsamplers" else int(index))
                has_attention = any(path.startswith(f"up_blocks.{block}.attentions.") for path in layers)
                yield _inside(f"output_blocks.{number}", kind, 2 if has_attention else 1, rest), layer
            case _ if layer in _UNET:
                yield _UNET[layer], layer
            case _:
                pass


def _inside(block: str, kind: str, upsampler: int, rest: Sequence[str]) -> str:
    place = {"resnets": 0, "attentions": 1, "downsamplers": 0, "upsamplers": upsampler}.get(kind, 0)
    return f"{block}.{place}.{_inner(kind, rest)}"


def _inner(kind: str, rest: Sequence[str]) -> str:
    path = ".".join(rest)
    if kind == "downsamplers":
        return "op"
    return _RESNET.get(path, path) if kind == "resnets" else path


# The original's name -> diffusers' layers; ~ before a layer: the halves of its outputs are swapped.
_FLUX = {
    "img_in": ["x_embedder"],
    "txt_in": ["context_embedder"],
    "time_in.in_layer": ["time_text_embed.timestep_embedder.linear_1"],
    "time_in.out_layer": ["time_text_embed.timestep_embedder.linear_2"],
    "guidance_in.in_layer": ["time_text_embed.guidance_embedder.linear_1"],
    "guidance_in.out_layer": ["time_text_embed.guidance_embedder.linear_2"],
    "vector_in.in_layer": ["time_text_embed.text_embedder.linear_1"],
    "vector_in.out_layer": ["time_text_embed.text_embedder.linear_2"],
    "final_layer.adaLN_modulation.1": ["~norm_out.linear"],
    "final_layer.linear": ["proj_out"],
}
_FLUX_BLOCKS = {
    "double_blocks.#.img_attn.qkv": [f"transformer_blocks.#.attn.to_{part}" for part in "qkv"],
    "double_blocks.#.img_attn.proj": ["transformer_blocks.#.attn.to_out.0"],
    "double_blocks.#.img_mlp.0": ["transformer_blocks.#.ff.net.0.proj"],
    "double_blocks.#.img_mlp.2": ["transformer_blocks.#.ff.net.2"],
    "double_blocks.#.img_mod.lin": ["transformer_blocks.#.norm1.linear"],
    "double_blocks.#.txt_attn.qkv": [f"transformer_blocks.#.attn.add_{part}_proj" for part in "qkv"],
    "double_blocks.#.txt_attn.proj": ["transformer_blocks.#.attn.to_add_out"],
    "double_blocks.#.txt_mlp.0": ["transformer_blocks.#.ff_context.net.0.proj"],
    "double_blocks.#.txt_mlp.2": ["transformer_blocks.#.ff_context.net.2"],
    "double_blocks.#.txt_mod.lin": ["transformer_blocks.#.norm1_context.linear"],
    "single_blocks.#.linear1": [
        *(f"single_transformer_blocks.#.attn.to_{part}" for part in "qkv"),
        "single_transformer_blocks.#.proj_mlp",
    ],
    "single_blocks.#.linear2": ["single_transformer_blocks.#.proj_out"],
    "single_blocks.#.modulation.lin": ["single_transformer_blocks.#.norm.linear"],
}
_SD3 = {
    "x_embedder.proj": ["pos_embed.proj"],
    "context_embedder": ["context_embedder"],
    "t_embedder.mlp.0": ["time_text_embed.timestep_embedder.linear_1"],
    "t_embedder.mlp.2": ["time_text_embed.timestep_embedder.linear_2"],
    "y_embedder.mlp.0": ["time_text_embed.text_embedder.linear_1"],
    "y_embedder.mlp.2": ["time_text_embed.text_embedder.linear_2"],
    "final_layer.adaLN_modulation.1": ["~norm_out.linear"],
    "final_layer.linear": ["proj_out"],
}
_SD3_BLOCKS = {
    "joint_blocks.#.x_block.attn.qkv": [f"transformer_blocks.#.attn.to_{part}" for part in "qkv"],
    "joint_blocks.#.x_block.attn2.qkv": [f"transformer_blocks.#.attn2.to_{part}" for part in "qkv"],
    "joint_blocks.#.x_block.attn.proj": ["transformer_blocks.#.attn.to_out.0"],
    "joint_blocks.#.x_block.attn2.proj": ["transformer_blocks.#.attn2.to_out.0"],
    "joint_blocks.#.x_block.mlp.fc1": ["transformer_blocks.#.ff.net.0.proj"],
    "joint_blocks.#.x_block.mlp.fc2": ["transformer_blocks.#.ff.net.2"],
    "joint_blocks.#.x_block.adaLN_modulation.1": ["transformer_blocks.#.norm1.linear"],
    "joint_blocks.#.context_block.attn.qkv": [f"transformer_blocks.#.attn.add_{part}_proj" for part in "qkv"],
    "joint_blocks.#.context_block.attn.proj": ["transformer_blocks.#.attn.to_add_out"],
    "joint_blocks.#.context_block.mlp.fc1": ["transformer_blocks.#.ff_context.net.0.proj"],
    "joint_blocks.#.context_block.mlp.fc2": ["transformer_blocks.#.ff_context.net.2"],
    "joint_blocks.#.context_block.adaLN_modulation.1": ["transformer_blocks.#.norm1_context.linear"],
}


def _joined(
    once: Mapping[str, Sequence[str]], blocks: Mapping[str, Sequence[str]], layers: Mapping[str, Layer]
) -> dict[str, tuple[Part, ...]]:
    numbers = {part for layer in layers for part in layer.split(".") if part.isdecimal()}
    wanted = dict(once)
    for original, parts in blocks.items():
        for number in numbers:
            wanted[original.replace("#", number)] = [part.replace("#", number) for part in parts]
    found = {original: tuple(_parts(parts, layers)) for original, parts in wanted.items()}
    return {original: parts for original, parts in found.items() if parts}


def _parts(named: Sequence[str], layers: Mapping[str, Layer]) -> Iterator[Part]:
    start, paths = 0, [name.removeprefix("~") for name in named]
    if not all(path in layers for path in paths):
        return
    for name, path in zip(named, paths, strict=True):
        width = layers[path].weight.shape[0]
        outputs = slice(start, start + width) if len(paths) > 1 else None
        yield Part(path, outputs, name != path or _is_last_context(path, layers))
        start += width


def _is_last_context(path: str, layers: Mapping[str, Layer]) -> bool:
    """SD3's last block keeps only scale and shift of its text, and diffusers has these the other way round."""
    block = path.removesuffix(".norm1_context.linear")
    return block != path and f"{block}.attn.to_add_out" not in layers
