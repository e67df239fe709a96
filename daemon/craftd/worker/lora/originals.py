"""The layers' names in the programs that the models come from, which LoRA files often use.

The UNets of SD and SDXL (Stability's generative-models), and the transformers of SD3, FLUX.1 and later; there, one
layer of the original may be several of diffusers', whose outputs stand one after another.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from craftd.worker.lora.layout import Component, Shape


@dataclass(frozen=True)
class Part:
    """A layer of diffusers', and which of the original's outputs are its."""

    layer: str
    outputs: slice | None = None
    is_swapped: bool = False


def names(component: Component) -> dict[str, tuple[Part, ...]]:
    """The original's names -> the layers they are here."""
    if component.kind == "UNet2DConditionModel":
        return {original: (Part(layer),) for original, layer in _unet(component.depth, component.layers)}
    once, blocks = _TRANSFORMERS.get(component.kind, ({}, {}))
    return _joined(once, blocks, component.layers)


def in_kohya_files(component: Component) -> dict[str, tuple[Part, ...]]:
    """As `names`, as far as kohya's programs use them: elsewhere they have diffusers' names too."""
    return {} if component.kind in _TRAINED_BY_DIFFUSERS_NAMES else names(component)


_RESNET = {
    "norm1": "in_layers.0",
    "norm2": "out_layers.0",
    "conv1": "in_layers.2",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
_UNET = {
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}


def _unet(depth: int, layers: Mapping[str, Shape]) -> Iterator[tuple[str, str]]:
    if not depth:
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


_FLUX2 = {
    "img_in": ["x_embedder"],
    "txt_in": ["context_embedder"],
    "time_in.in_layer": ["time_guidance_embed.timestep_embedder.linear_1"],
    "time_in.out_layer": ["time_guidance_embed.timestep_embedder.linear_2"],
    "guidance_in.in_layer": ["time_guidance_embed.guidance_embedder.linear_1"],
    "guidance_in.out_layer": ["time_guidance_embed.guidance_embedder.linear_2"],
    "double_stream_modulation_img.lin": ["double_stream_modulation_img.linear"],
    "double_stream_modulation_txt.lin": ["double_stream_modulation_txt.linear"],
    "single_stream_modulation.lin": ["single_stream_modulation.linear"],
    "final_layer.adaLN_modulation.1": ["~norm_out.linear"],
    "final_layer.linear": ["proj_out"],
}
_FLUX2_BLOCKS = {
    "double_blocks.#.img_attn.qkv": [f"transformer_blocks.#.attn.to_{part}" for part in "qkv"],
    "double_blocks.#.img_attn.proj": ["transformer_blocks.#.attn.to_out.0"],
    "double_blocks.#.img_mlp.0": ["transformer_blocks.#.ff.linear_in"],
    "double_blocks.#.img_mlp.2": ["transformer_blocks.#.ff.linear_out"],
    "double_blocks.#.txt_attn.qkv": [f"transformer_blocks.#.attn.add_{part}_proj" for part in "qkv"],
    "double_blocks.#.txt_attn.proj": ["transformer_blocks.#.attn.to_add_out"],
    "double_blocks.#.txt_mlp.0": ["transformer_blocks.#.ff_context.linear_in"],
    "double_blocks.#.txt_mlp.2": ["transformer_blocks.#.ff_context.linear_out"],
    "single_blocks.#.linear1": ["single_transformer_blocks.#.attn.to_qkv_mlp_proj"],
    "single_blocks.#.linear2": ["single_transformer_blocks.#.attn.to_out"],
}
_Z_IMAGE = {
    "x_embedder": ["all_x_embedder.2-1"],
    "final_layer.linear": ["all_final_layer.2-1.linear"],
    "final_layer.adaLN_modulation.1": ["all_final_layer.2-1.adaLN_modulation.1"],
}
_Z_IMAGE_BLOCKS = {
    name: parts
    for blocks in ("layers", "noise_refiner", "context_refiner")
    for name, parts in {
        f"{blocks}.#.attention.qkv": [f"{blocks}.#.attention.to_{part}" for part in "qkv"],
        f"{blocks}.#.attention.out": [f"{blocks}.#.attention.to_out.0"],
    }.items()
}
_KREA2 = {
    "first": ["img_in"],
    "last.linear": ["final_layer.linear"],
    "tmlp.0": ["time_embed.linear_1"],
    "tmlp.2": ["time_embed.linear_2"],
    "tproj.1": ["time_mod_proj"],
    "txtmlp.1": ["txt_in.linear_1"],
    "txtmlp.3": ["txt_in.linear_2"],
    "txtfusion.projector": ["text_fusion.projector"],
}
_KREA2_LAYERS = {f"attn.w{part}": f"attn.to_{part}" for part in "qkv"} | {
    "attn.wo": "attn.to_out.0",
    "attn.gate": "attn.to_gate",
    "mlp.gate": "ff.gate",
    "mlp.up": "ff.up",
    "mlp.down": "ff.down",
}
_KREA2_BLOCKS = {
    f"{original}.#.{layer}": [f"{blocks}.#.{own}"]
    for original, blocks in {
        "blocks": "transformer_blocks",
        "txtfusion.layerwise_blocks": "text_fusion.layerwise_blocks",
        "txtfusion.refiner_blocks": "text_fusion.refiner_blocks",
    }.items()
    for layer, own in _KREA2_LAYERS.items()
}
_TRANSFORMERS: dict[str, tuple[Mapping[str, Sequence[str]], Mapping[str, Sequence[str]]]] = {
    "FluxTransformer2DModel": (_FLUX, _FLUX_BLOCKS),
    "SD3Transformer2DModel": (_SD3, _SD3_BLOCKS),
    "Flux2Transformer2DModel": (_FLUX2, _FLUX2_BLOCKS),
    "ZImageTransformer2DModel": (_Z_IMAGE, _Z_IMAGE_BLOCKS),
    "Krea2Transformer2DModel": (_KREA2, _KREA2_BLOCKS),
}
_TRAINED_BY_DIFFUSERS_NAMES = ("ZImageTransformer2DModel",)


def _joined(
    once: Mapping[str, Sequence[str]], blocks: Mapping[str, Sequence[str]], layers: Mapping[str, Shape]
) -> dict[str, tuple[Part, ...]]:
    numbers = {part for layer in layers for part in layer.split(".") if part.isdecimal()}
    wanted = dict(once)
    for original, parts in blocks.items():
        for number in numbers:
            wanted[original.replace("#", number)] = [part.replace("#", number) for part in parts]
    found = {original: tuple(_parts(parts, layers)) for original, parts in wanted.items()}
    return {original: parts for original, parts in found.items() if parts}


def _parts(named: Sequence[str], layers: Mapping[str, Shape]) -> Iterator[Part]:
    start, paths = 0, [name.removeprefix("~") for name in named]
    if not all(path in layers for path in paths):
        return
    for name, path in zip(named, paths, strict=True):
        width = layers[path][0]
        outputs = slice(start, start + width) if len(paths) > 1 else None
        yield Part(path, outputs, name != path or _is_last_context(path, layers))
        start += width


def _is_last_context(path: str, layers: Mapping[str, Shape]) -> bool:
    """SD3's last block keeps only scale and shift of its text, and diffusers has these the other way round."""
    block = path.removesuffix(".norm1_context.linear")
    return block != path and f"{block}.attn.to_add_out" not in layers
