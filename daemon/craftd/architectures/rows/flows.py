"""Rows of transformers of flow matching that craft's own loop draws with."""

from __future__ import annotations

import re
from dataclasses import replace

from craft_protos.generate import MOST_REFERENCES

from craftd.architectures import parts
from craftd.architectures.architecture import (
    FLOW,
    Architecture,
    Checkpoint,
    Distilled,
    Mark,
    Part,
    PartKind,
    Training,
)
from craftd.architectures.rows.shared import (
    ANOTHER_OF_ITS_KIND,
    ATTENTION,
    INPAINTS,
    OF_FLUX2,
    PICTURES,
    UNUSED_PARTS,
    marks,
    named,
    told_apart,
    vae_of,
)

_SHOWN = PICTURES | {"references"}  # and pictures that the model is shown

_JOINT = tuple(f"attn.{name}" for name in (*ATTENTION, "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"))

_FEED_FORWARD = ("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2")

_CLIP_L = Part("the text encoder CLIP-L", ("text_encoders.clip_l.",), "text_encoder", parts.CLIP_L)

_CLIP_G = Part("the text encoder CLIP-G", ("text_encoders.clip_g.",), "text_encoder_2", parts.CLIP_G)


def _t5(component: str) -> Part:
    return Part("the text encoder T5", ("text_encoders.t5xxl.",), component, parts.T5_XXL)


def _sd3(folder: str, blocks: int, positions: int) -> tuple[Checkpoint, ...]:
    """The two layouts of a Stable Diffusion 3 of so many blocks."""
    last, beyond = f"{blocks - 1}.", f"{blocks}."
    original = Mark((f"joint_blocks.{last}",), (f"joint_blocks.{beyond}",), ("pos_embed", 1, positions))
    diffusers = Mark(
        (f"transformer_blocks.{last}", "proj_out."),
        (f"transformer_blocks.{beyond}",),
        ("pos_embed.pos_embed", 1, positions),
        ("transformer.", ""),
    )
    told, t5 = (vae_of(parts.SD3_VAE), _CLIP_L, _CLIP_G), _t5("text_encoder_3")
    return Checkpoint(folder, original, told, (t5,)), Checkpoint(folder, diffusers, named(*told), named(t5))


def _flux(folder: str, *, has_guidance: bool, word: str = "", channels: int = 64) -> tuple[Checkpoint, ...]:
    """The two layouts of a FLUX.1; `word`: that tells one by its file's name alone; `channels`: that it takes."""
    has, lacks = told_apart("guidance_in.", "double_blocks.0.img_attn.", "img_in.", is_there=has_guidance)
    original = Mark(has, (*lacks, OF_FLUX2))
    blocks = ("transformer_blocks.", "single_transformer_blocks.", "proj_out.")
    has, lacks = told_apart("time_text_embed.guidance_embedder.", *blocks, is_there=has_guidance)
    diffusers, told = (
        Mark(has, (*lacks, OF_FLUX2), None, ("transformer.", "")),
        (vae_of(parts.FLUX_VAE), _CLIP_L, _t5("text_encoder_2")),
    )
    return (
        Checkpoint(folder, original, told, (), ("img_in.weight", channels), word=word),
        Checkpoint(folder, diffusers, named(*told), (), ("x_embedder.weight", channels), word=word),
    )


def _flux2(size: str, blocks: int, encoder: PartKind) -> tuple[Checkpoint, ...]:
    """The two layouts of a FLUX.2 klein of so many double blocks; the base model's tensors are the distilled one's."""
    told = (
        vae_of(parts.FLUX2_VAE),
        Part(encoder.name, (f"text_encoders.{encoder.id.replace('-', '_')}.",), "text_encoder", encoder),
    )
    assert encoder.mark.side is not None
    last, beyond, width = f"{blocks - 1}.", f"{blocks}.", 3 * encoder.mark.side[2]  # of three of its layers
    original = Mark(
        (OF_FLUX2, f"double_blocks.{last}"), (f"double_blocks.{beyond}", "guidance_in."), ("txt_in.weight", 1, width)
    )
    diffusers = Mark(
        (OF_FLUX2, f"transformer_blocks.{last}"),
        (f"transformer_blocks.{beyond}",),
        ("context_embedder.weight", 1, width),
        ("transformer.", ""),
    )
    folder, base = f"flux2-klein-{size}", {"base": f"flux2-klein-base-{size}"}
    return (
        Checkpoint(folder, original, told, named_configurations=base),
        Checkpoint(folder, diffusers, named(*told), named_configurations=base),
    )


def _z_image() -> tuple[Checkpoint, ...]:
    """The two layouts of Z-Image; Turbo's tensors are the base model's."""
    told = (
        vae_of(parts.FLUX_VAE),
        Part("the text encoder Qwen3-4B", ("text_encoders.qwen3_4b.",), "text_encoder", parts.QWEN3_4B),
    )
    common = ("cap_embedder.", "layers.0.adaLN_modulation.0.", "noise_refiner.")
    original = Mark((*common, "x_embedder.", "final_layer."), ("all_x_embedder.",), ("cap_embedder.1.weight", 1, 2560))
    diffusers = Mark((*common, "all_x_embedder."), (), ("cap_embedder.1.weight", 1, 2560), ("transformer.", ""))
    turbo = {"turbo": "z-image-turbo", "zit": "z-image-turbo"}
    return (
        Checkpoint("z-image", original, told, named_configurations=turbo),
        Checkpoint("z-image", diffusers, named(*told), named_configurations=turbo),
    )


def _qwen_image() -> tuple[Checkpoint, ...]:
    """Qwen-Image, whose original layout is diffusers'; those that edit have the same tensors and other parts."""
    told = (
        vae_of(parts.QWEN_IMAGE_VAE),
        Part(parts.QWEN25_VL_7B.name, ("text_encoders.qwen25_7b.",), "text_encoder", parts.QWEN25_VL_7B),
    )
    mark = Mark(
        ("transformer_blocks.59.img_mod.", "txt_norm.", "img_in."),
        ("transformer_blocks.60.", "time_text_embed.addition_t_embedding."),
        ("txt_in.weight", 1, 3584),
    )
    return (
        Checkpoint("qwen-image", mark, told, not_word="edit"),
        Checkpoint("qwen-image", replace(mark, prefixes=("transformer.",)), named(*told), not_word="edit"),
    )


def _krea2() -> tuple[Checkpoint, ...]:
    """The two layouts of Krea 2; Turbo's tensors are the base model's."""
    told = (
        vae_of(parts.QWEN_IMAGE_VAE),
        Part(parts.QWEN3_VL_4B.name, ("text_encoders.qwen3vl_4b.",), "text_encoder", parts.QWEN3_VL_4B),
    )
    original = Mark(("txtfusion.", "blocks.27.attn.", "last."), ("blocks.28.",), ("first.weight", 1, 64))
    diffusers = Mark(
        ("text_fusion.", "transformer_blocks.27.", "final_layer."),
        ("transformer_blocks.28.",),
        ("img_in.weight", 1, 64),
        ("transformer.", ""),
    )
    turbo = {"turbo": "krea2-turbo"}
    return (
        Checkpoint("krea2", original, told, named_configurations=turbo),
        Checkpoint("krea2", diffusers, named(*told), named_configurations=turbo),
    )


SD3 = Architecture(
    id="sd3",
    name="Stable Diffusion 3",
    pipelines=("StableDiffusion3Pipeline",),
    family="sd3",
    takes=PICTURES | {"controls"},
    network="SD3Transformer2DModel",
    predicts=FLOW,
    steps=28,
    guidance_scale=7.0,
    unused_parts=UNUSED_PARTS,
    optional_parts=("text_encoder_3", "tokenizer_3"),
    checkpoints=(
        *_sd3("sd3-medium", 24, 36864),
        *_sd3("sd3.5-medium", 24, 147456),
        *_sd3("sd3.5-large", 38, 36864),
    ),
    lora_layer=re.compile(r"(^|[._])joint_blocks[._]"),
    lora_note=re.compile(r"^stable-diffusion-3|^stable-diffusion-v3|^sd3"),
    kohya="sd3",
    modelspec="stable-diffusion-3",
    visioncraft=("SD-3", "SD-3.5"),
    training=Training(_JOINT, ("text_encoder", "text_encoder_2")),
)

FLUX = Architecture(
    id="flux",
    name="FLUX.1",
    pipelines=("FluxPipeline",),
    family="flux",
    takes=PICTURES | {"controls", "true_cfg_scale"},
    network="FluxTransformer2DModel",
    predicts=FLOW,
    steps=28,
    guidance_scale=3.5,
    distilled=Distilled("transformer", "guidance_embeds", value=False, steps=4),
    unused_parts=UNUSED_PARTS,
    checkpoints=(*_flux("flux-dev", has_guidance=True), *_flux("flux-schnell", has_guidance=False)),
    variants={128: "{} Depth or Canny"},
    lora_layer=re.compile(r"(^|[._])(single_transformer_blocks|single_blocks|double_blocks)[._]"),
    lora_note=re.compile(r"^flux[-_.]?1(\b|[-_])"),
    kohya="flux1",
    modelspec="flux-1-dev",
    visioncraft=("FLUX.1",),
    training=Training((*_JOINT, *_FEED_FORWARD), ("text_encoder",), guidance_scale=3.5),
)

FLUX_FILL = replace(
    FLUX,
    name="FLUX.1 Fill",
    pipelines=("FluxFillPipeline",),
    family="flux-fill",
    takes=PICTURES | {"true_cfg_scale"},
    steps=50,
    guidance_scale=30.0,
    distilled=None,
    checkpoints=_flux("flux-fill", has_guidance=True, channels=384),
    **INPAINTS,
)

FLUX_KONTEXT = Architecture(
    id="flux-kontext",
    name="FLUX.1 Kontext",
    pipelines=("FluxKontextPipeline",),
    family="flux-kontext",
    takes=_SHOWN | {"true_cfg_scale"},
    most_references=1,
    shapes=(
        *((672, 1568), (688, 1504), (720, 1456), (752, 1392), (800, 1328), (832, 1248), (880, 1184), (944, 1104)),
        (1024, 1024),
        *((1104, 944), (1184, 880), (1248, 832), (1328, 800), (1392, 752), (1456, 720), (1504, 688), (1568, 672)),
    ),
    predicts=FLOW,
    steps=28,
    guidance_scale=2.5,
    unused_parts=UNUSED_PARTS,
    checkpoints=_flux("flux-kontext", has_guidance=True, word="kontext"),
    lora_like=FLUX.id,
)

CHROMA = Architecture(
    id="chroma",
    name="Chroma",
    pipelines=("ChromaPipeline",),
    family="chroma",
    unused_parts=UNUSED_PARTS,
    takes=PICTURES,
    network="ChromaTransformer2DModel",
    predicts=FLOW,
    steps=35,
    guidance_scale=5.0,
    marks=marks("distilled_guidance_layer."),
    lora_like=FLUX.id,
    lora_note=re.compile(r"^chroma"),
    kohya="chroma",
    modelspec="chroma",
    training=Training((*_JOINT, *_FEED_FORWARD), ()),
)

ZIMAGE = Architecture(
    id="z-image",
    name="Z-Image",
    pipelines=("ZImagePipeline",),
    family="z-image",
    takes=PICTURES | {"controls"},
    network="ZImageTransformer2DModel",
    predicts=FLOW,
    steps=50,
    guidance_scale=4.0,
    # Turbo is the same network: what tells it is the shift of its schedule, where Z-Image itself has 6.
    distilled=Distilled("scheduler", "shift", value=3.0, steps=8),
    checkpoints=_z_image(),
    lora_layer=re.compile(
        r"(^|[._])(layers|noise_refiner|context_refiner)[._]\d+[._](attention[._](qkv|out|to_)|feed_forward[._]w\d)"
    ),
    lora_note=re.compile(r"^z[-_]?image"),
    kohya="z_image",
    modelspec="Z-Image",
    training=Training(
        (*(f"attention.{name}" for name in ATTENTION), *(f"feed_forward.w{i}" for i in (1, 2, 3))),
        (),
        guidance_scale=4.0,
    ),
)

FLUX2 = Architecture(
    id="flux2",
    name="FLUX.2",
    pipelines=("Flux2KleinPipeline",),
    family="flux2",
    takes=_SHOWN,
    network="Flux2Transformer2DModel",
    predicts=FLOW,
    steps=50,
    guidance_scale=4.0,
    distilled=Distilled("", "is_distilled", value=True, steps=4, guidance_scale=1.0),
    checkpoints=(*_flux2("4b", 5, parts.QWEN3_4B), *_flux2("9b", 8, parts.QWEN3_8B)),
    lora_layer=re.compile(r"[._](attn[._]to_qkv_mlp_proj|ff(_context)?[._]linear_(in|out))"),
    lora_like=FLUX.id,  # in the original's names
    lora_note=re.compile(r"^flux[-_.]?2(\b|[-_])"),
    kohya="flux_2_klein_4b",
    modelspec="Flux.2-klein-4b",
    training=Training(
        (*_JOINT, "ff.linear_in", "ff.linear_out", "ff_context.linear_in", "ff_context.linear_out", "to_qkv_mlp_proj"),
        (),
        guidance_scale=4.0,
    ),
)

FLUX2_DEV = replace(
    FLUX2,
    name="FLUX.2 dev",
    pipelines=("Flux2Pipeline",),
    family="flux2-dev",
    distilled=None,
    checkpoints=(),
    **ANOTHER_OF_ITS_KIND,
)

QWEN_IMAGE = Architecture(
    id="qwen-image",
    name="Qwen-Image",
    pipelines=("QwenImagePipeline",),
    family="qwen-image",
    takes=PICTURES | {"controls"},
    network="QwenImageTransformer2DModel",
    predicts=FLOW,
    steps=50,
    guidance_scale=4.0,
    checkpoints=_qwen_image(),
    lora_layer=re.compile(r"(^|[._])transformer_blocks[._]\d+[._](img|txt)_(mlp|mod)[._]"),
    lora_note=re.compile(r"^qwen[-_]?image"),
    kohya="qwen_image",
    modelspec="Qwen-Image",
    training=Training(
        (*_JOINT, *(f"{stream}_mlp.net.{part}" for stream in ("img", "txt") for part in ("0.proj", "2"))),
        (),
        guidance_scale=4.0,
    ),
)

QWEN_IMAGE_EDIT = Architecture(
    id="qwen-image-edit",
    name="Qwen-Image-Edit",
    pipelines=("QwenImageEditPipeline",),
    family="qwen-image-edit",
    takes=_SHOWN,
    needs=frozenset({"references"}),
    most_references=1,
    shown_pixels=1024 * 1024,
    predicts=FLOW,
    steps=50,
    guidance_scale=4.0,
    lora_like=QWEN_IMAGE.id,
)

QWEN_IMAGE_EDIT_PLUS = replace(
    QWEN_IMAGE_EDIT,
    id="qwen-image-edit-plus",
    name="Qwen-Image-Edit Plus",
    pipelines=("QwenImageEditPlusPipeline",),
    family="qwen-image-edit-plus",
    most_references=MOST_REFERENCES,
    steps=40,
)

KREA2 = Architecture(
    id="krea2",
    name="Krea 2",
    pipelines=("Krea2Pipeline",),
    family="krea2",
    takes=PICTURES,
    network="Krea2Transformer2DModel",
    predicts=FLOW,
    steps=28,
    guidance_scale=4.5,
    distilled=Distilled("", "is_distilled", value=True, steps=8),
    checkpoints=_krea2(),
    lora_layer=re.compile(r"(^|[._])(text_fusion|txtfusion|blocks[._]\d+[._]attn[._](w[qkvo]|gate|to_gate)\b)"),
    lora_note=re.compile(r"^krea[-_]?2"),
    kohya="krea2",
    modelspec="Krea-2",
    training=Training(
        (*(f"attn.{name}" for name in (*ATTENTION, "to_gate")), "ff.gate", "ff.up", "ff.down"),
        (),
        guidance_scale=4.5,
    ),
)
