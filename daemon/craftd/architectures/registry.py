"""The architectures that craft knows: one row for each, and nothing of one anywhere else but in its family.

The front and the worker both read it, so nothing here imports torch. `detect.py` finds the row of a folder, of a
checkpoint, of a network or of a LoRA. A pipeline of diffusers' that has no row is drawn by the generic family.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from craft_protos.generate import MOST_REFERENCES

from craftd.architectures import controls, parts
from craftd.architectures.architecture import (
    BARE_LDM,
    FLOW,
    LDM,
    NOISE,
    VELOCITY,
    Architecture,
    Checkpoint,
    Distilled,
    Mark,
    Part,
    PartKind,
    Training,
)

# Nothing that the pictures need: the safety checker would black some out unasked.
UNUSED_PARTS = frozenset({"safety_checker", "feature_extractor", "image_encoder"})

_PICTURES = frozenset({"start", "mask"})  # fields of a request: what the families can begin from
_SHOWN = _PICTURES | {"references"}  # and pictures that the model is shown
_OF_UNETS = _PICTURES | {"controls", "clip_skip", "guidance_rescale", "embeddings"}  # and embeddings
_ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
# A UNet that takes its words through the timestep's embedding too, as pocket does, is hardly steered by attention.
WHOLE = (
    *_ATTENTION,
    *("ff.net.0.proj", "ff.net.2", "proj_in", "proj_out", "add_embedding.proj"),
    *("conv1", "conv2", "conv_shortcut", "time_emb_proj"),
)
_JOINT = tuple(f"attn.{name}" for name in (*_ATTENTION, "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"))
_FEED_FORWARD = ("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2")

_UNET_VARIANTS = {
    8: "the picture-editing variant of {}",
    5: "the depth variant of {}",
}
_OF_FLUX2 = "single_stream_modulation."
_CLIP_L = Part("the text encoder CLIP-L", ("text_encoders.clip_l.",), "text_encoder", parts.CLIP_L)
_CLIP_G = Part("the text encoder CLIP-G", ("text_encoders.clip_g.",), "text_encoder_2", parts.CLIP_G)


def _vae(kind: PartKind) -> Part:
    return Part("the VAE", ("first_stage_model.", "vae."), "vae", kind)


def _t5(component: str) -> Part:
    return Part("the text encoder T5", ("text_encoders.t5xxl.",), component, parts.T5_XXL)


def _named(*told: Part) -> tuple[Part, ...]:
    """The same parts in diffusers' layout."""
    return tuple(Part(f"its {one.component}", (f"{one.component}.",), one.component, one.kind) for one in told)


def _with(beginning: str, *has: str, is_there: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What a mark has and lacks, where one beginning tells two architectures apart."""
    return ((*has, beginning), ()) if is_there else (has, (beginning,))


def _unet(
    width: int, folder: str, *encoders: Part, is_xl: bool = False, v_folder: str = "", channels: int = 4
) -> tuple[Checkpoint, ...]:
    """The two layouts of a Stable Diffusion whose UNet attends to text of that width; `channels`: that it takes."""
    cross, vae = ("*attn2.to_k.weight", -1, width), _vae(parts.SDXL_VAE if is_xl else parts.SD_VAE)
    original = Mark(*_with("label_emb.", "input_blocks.0.0.", is_there=is_xl), cross, (LDM, BARE_LDM))
    diffusers = Mark(*_with("add_embedding.", "conv_in.", "down_blocks.", is_there=is_xl), cross, ("unet.", ""))
    return (
        Checkpoint(folder, original, (vae, *encoders), (), ("input_blocks.0.0.weight", channels), v_folder),
        Checkpoint(folder, diffusers, _named(vae, *encoders), (), ("conv_in.weight", channels), v_folder),
    )


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
    told, t5 = (_vae(parts.SD3_VAE), _CLIP_L, _CLIP_G), _t5("text_encoder_3")
    return Checkpoint(folder, original, told, (t5,)), Checkpoint(folder, diffusers, _named(*told), _named(t5))


def _flux(folder: str, *, has_guidance: bool, word: str = "", channels: int = 64) -> tuple[Checkpoint, ...]:
    """The two layouts of a FLUX.1; `word`: that tells one by its file's name alone; `channels`: that it takes."""
    has, lacks = _with("guidance_in.", "double_blocks.0.img_attn.", "img_in.", is_there=has_guidance)
    original = Mark(has, (*lacks, _OF_FLUX2))
    blocks = ("transformer_blocks.", "single_transformer_blocks.", "proj_out.")
    has, lacks = _with("time_text_embed.guidance_embedder.", *blocks, is_there=has_guidance)
    diffusers, told = (
        Mark(has, (*lacks, _OF_FLUX2), None, ("transformer.", "")),
        (_vae(parts.FLUX_VAE), _CLIP_L, _t5("text_encoder_2")),
    )
    return (
        Checkpoint(folder, original, told, (), ("img_in.weight", channels), word=word),
        Checkpoint(folder, diffusers, _named(*told), (), ("x_embedder.weight", channels), word=word),
    )


def _flux2() -> tuple[Checkpoint, ...]:
    """The two layouts of FLUX.2 klein of 4 billion parameters; the base model's tensors are the distilled one's."""
    told = (
        _vae(parts.FLUX2_VAE),
        Part("the text encoder Qwen3-4B", ("text_encoders.qwen3_4b.",), "text_encoder", parts.QWEN3_4B),
    )
    original = Mark((_OF_FLUX2, "double_blocks.4."), ("double_blocks.5.", "guidance_in."), ("txt_in.weight", 1, 7680))
    diffusers = Mark(
        (_OF_FLUX2, "transformer_blocks.4."),
        ("transformer_blocks.5.",),
        ("context_embedder.weight", 1, 7680),
        ("transformer.", ""),
    )
    base = {"base": "flux2-klein-base-4b"}
    return (
        Checkpoint("flux2-klein-4b", original, told, named_configurations=base),
        Checkpoint("flux2-klein-4b", diffusers, _named(*told), named_configurations=base),
    )


def _z_image() -> tuple[Checkpoint, ...]:
    """The two layouts of Z-Image; Turbo's tensors are the base model's."""
    told = (
        _vae(parts.FLUX_VAE),
        Part("the text encoder Qwen3-4B", ("text_encoders.qwen3_4b.",), "text_encoder", parts.QWEN3_4B),
    )
    common = ("cap_embedder.", "layers.0.adaLN_modulation.0.", "noise_refiner.")
    original = Mark((*common, "x_embedder.", "final_layer."), ("all_x_embedder.",), ("cap_embedder.1.weight", 1, 2560))
    diffusers = Mark((*common, "all_x_embedder."), (), ("cap_embedder.1.weight", 1, 2560), ("transformer.", ""))
    turbo = {"turbo": "z-image-turbo", "zit": "z-image-turbo"}
    return (
        Checkpoint("z-image", original, told, named_configurations=turbo),
        Checkpoint("z-image", diffusers, _named(*told), named_configurations=turbo),
    )


def _marks(*beginnings: str, **more: Any) -> tuple[Mark, ...]:
    """One for each beginning, any of which is enough."""
    return tuple(Mark((beginning,), **more) for beginning in beginnings)


# Of a row whose models draw nothing without a start and a mask. What their LoRAs and control models are called is the
# other row's, whose id it has.
_INPAINTS: Mapping[str, Any] = {
    "needs": _PICTURES,
    "network": "",
    "kohya": "",
    "modelspec": "",
    "modelspec_predicts": {},
    "visioncraft": (),
    "lora_note": re.compile(r"(?!)"),
    "lora_layer": re.compile(r"(?!)"),
    "training": None,
}

_SD1_TEXT = Part("the text encoder", ("cond_stage_model.transformer.",), "text_encoder", parts.CLIP_L)
_SD2_TEXT = Part("the text encoder", ("cond_stage_model.model.",), "text_encoder")
_SDXL_TEXTS = (
    Part("the text encoder CLIP-L", ("conditioner.embedders.0.transformer.",), "text_encoder", parts.CLIP_L),
    Part("the text encoder OpenCLIP-G", ("conditioner.embedders.1.model.",), "text_encoder_2", parts.CLIP_G),
)
SD1 = Architecture(
    id="sd1",
    name="Stable Diffusion 1",
    pipelines=("StableDiffusionPipeline",),
    family="sd",
    takes=_OF_UNETS,
    network="UNet2DConditionModel",
    text_width=768,
    unused_parts=UNUSED_PARTS,
    runs_in_fp16=True,
    checkpoints=_unet(768, "sd1", _SD1_TEXT),
    variants=_UNET_VARIANTS,
    lora_note=re.compile(r"^stable-diffusion-v1|^sd_v1|^sd1"),
    kohya="sd_v1",
    modelspec="stable-diffusion-v1",
    visioncraft=("SD-1.4", "SD-1.5"),
    training=Training(
        _ATTENTION, ("text_encoder",), batch_size=4, resolution=512, min_snr_gamma=5, gradient_checkpointing=False
    ),
)
SD2 = Architecture(
    id="sd2",
    name="Stable Diffusion 2",
    pipelines=SD1.pipelines,
    family="sd",
    takes=_OF_UNETS,
    network=SD1.network,
    text_width=1024,
    predicts=VELOCITY,
    unused_parts=UNUSED_PARTS,
    runs_in_fp16=True,
    checkpoints=_unet(1024, "sd2", _SD2_TEXT, v_folder="sd2-v"),
    variants=_UNET_VARIANTS,
    lora_note=re.compile(r"^stable-diffusion-v2|^sd_v2|^sd2"),
    kohya="sd_v2",
    modelspec="stable-diffusion-v2-768-v",
    modelspec_predicts={"stable-diffusion-v2-768-v": VELOCITY, "stable-diffusion-v2-512": "epsilon"},
    visioncraft=("SD-2.0", "SD-2.1"),
    training=Training(
        _ATTENTION, ("text_encoder",), batch_size=4, resolution=768, min_snr_gamma=5, gradient_checkpointing=False
    ),
)
SDXL = Architecture(
    id="sdxl",
    name="Stable Diffusion XL",
    pipelines=("StableDiffusionXLPipeline",),
    family="sdxl",
    takes=_OF_UNETS | {"original_width", "original_height", "crop_left", "crop_top"},
    network=SD1.network,
    text_width=2048,
    steps=30,
    guidance_scale=5.0,
    unused_parts=UNUSED_PARTS,
    runs_in_fp16=True,
    checkpoints=_unet(2048, "sdxl", *_SDXL_TEXTS, is_xl=True),
    variants=_UNET_VARIANTS,
    lora_note=re.compile(r"^stable-diffusion-xl|^sdxl"),
    kohya="sdxl_base_v1-0",
    modelspec="stable-diffusion-xl-v1-base",
    visioncraft=("SDXL-1.0",),
    training=Training(_ATTENTION, ("text_encoder", "text_encoder_2"), min_snr_gamma=5),
)
SD1_INPAINTING = replace(
    SD1,
    name="Stable Diffusion 1 inpainting",
    pipelines=("StableDiffusionInpaintPipeline",),
    checkpoints=_unet(768, "sd1-inpainting", _SD1_TEXT, channels=9),
    **_INPAINTS,
)
SD2_INPAINTING = replace(
    SD2,
    name="Stable Diffusion 2 inpainting",
    pipelines=SD1_INPAINTING.pipelines,
    predicts=NOISE,
    checkpoints=_unet(1024, "sd2-inpainting", _SD2_TEXT, channels=9),
    **_INPAINTS,
)
SDXL_INPAINTING = replace(
    SDXL,
    name="Stable Diffusion XL inpainting",
    pipelines=("StableDiffusionXLInpaintPipeline",),
    checkpoints=_unet(2048, "sdxl-inpainting", *_SDXL_TEXTS, is_xl=True, channels=9),
    **_INPAINTS,
)
SD3 = Architecture(
    id="sd3",
    name="Stable Diffusion 3",
    pipelines=("StableDiffusion3Pipeline",),
    family="sd3",
    takes=_PICTURES,
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
    takes=_PICTURES,
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
    steps=50,
    guidance_scale=30.0,
    distilled=None,
    checkpoints=_flux("flux-fill", has_guidance=True, channels=384),
    **_INPAINTS,
)
FLUX_KONTEXT = Architecture(
    id="flux-kontext",
    name="FLUX.1 Kontext",
    pipelines=("FluxKontextPipeline",),
    family="flux-kontext",
    takes=_SHOWN,
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
POCKET = Architecture(
    id="pocket",
    name="pocket",
    pipelines=SD1.pipelines,
    family="sd",
    takes=_OF_UNETS,
    network=SD1.network,
    text_width=256,
    unused_parts=UNUSED_PARTS,
    runs_in_fp16=True,
    lora_note=re.compile(r"^(craft-)?pocket(\b|[-_])"),
    kohya="pocket",
    modelspec="pocket",
    visioncraft=("pocket",),
    training=Training(
        WHOLE,
        ("text_encoder",),
        learning_rate=4e-3,
        steps=250,
        batch_size=4,
        resolution=256,
        min_snr_gamma=5,
        gradient_checkpointing=False,
        warmup_steps=10,
        caption_dropout=0.0,
        checkpoint_every=50,
        sample_steps=12,
        guidance_scale=2.0,
    ),
)

LCM = Architecture(  # of which Stable Diffusion it was made, and so whose LoRAs fit, its pipeline does not tell
    id="", name="a latent consistency model", pipelines=("LatentConsistencyModelPipeline",), unused_parts=UNUSED_PARTS
)

HUNYUAN_DIT = Architecture(
    id="hunyuan-dit",
    name="Hunyuan-DiT",
    pipelines=("HunyuanDiTPipeline",),
    network="HunyuanDiT2DModel",
    predicts=VELOCITY,
    steps=50,
    guidance_scale=5.0,
    call={"use_resolution_binning": False},  # else it draws the nearest of a few sizes of its own
)
CHROMA = Architecture(
    id="chroma",
    name="Chroma",
    pipelines=("ChromaPipeline",),
    network="ChromaTransformer2DModel",
    predicts=FLOW,
    steps=35,
    guidance_scale=5.0,
    marks=_marks("distilled_guidance_layer."),
    lora_like=FLUX.id,
)
AURAFLOW = Architecture(
    id="auraflow",
    name="AuraFlow",
    pipelines=("AuraFlowPipeline",),
    network="AuraFlowTransformer2DModel",
    predicts=FLOW,
    steps=50,
    guidance_scale=3.5,
    marks=_marks("double_layers.0.attn.w2q."),
    lora_like=FLUX.id,
)
LUMINA2 = Architecture(
    id="lumina2",
    name="Lumina 2",
    pipelines=("Lumina2Pipeline",),
    network="Lumina2Transformer2DModel",
    predicts=FLOW,
    steps=30,
    guidance_scale=4.0,
)
ZIMAGE = Architecture(
    id="z-image",
    name="Z-Image",
    pipelines=("ZImagePipeline",),
    family="z-image",
    takes=_PICTURES,
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
        (*(f"attention.{name}" for name in _ATTENTION), *(f"feed_forward.w{i}" for i in (1, 2, 3))),
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
    checkpoints=_flux2(),
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
QWEN_IMAGE = Architecture(
    id="qwen-image",
    name="Qwen-Image",
    pipelines=("QwenImagePipeline",),
    family="qwen-image",
    takes=_PICTURES,
    network="QwenImageTransformer2DModel",
    predicts=FLOW,
    steps=50,
    guidance_scale=4.0,
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
    takes=_PICTURES,
    network="Krea2Transformer2DModel",
    predicts=FLOW,
    steps=28,
    guidance_scale=4.5,
    distilled=Distilled("", "is_distilled", value=True, steps=8),
    lora_layer=re.compile(r"(^|[._])(text_fusion|txtfusion|blocks[._]\d+[._]attn[._](w[qkvo]|gate|to_gate)\b)"),
    lora_note=re.compile(r"^krea[-_]?2"),
    kohya="krea2",
    modelspec="Krea-2",
    training=Training(
        (*(f"attn.{name}" for name in (*_ATTENTION, "to_gate")), "ff.gate", "ff.up", "ff.down"),
        (),
        guidance_scale=4.5,
    ),
)

_AS_ASKED: Mapping[str, object] = {"use_resolution_binning": False}  # else the nearest of a few sizes is drawn

PIXART = Architecture(
    id="pixart",
    name="PixArt",
    pipelines=("PixArtAlphaPipeline", "PixArtSigmaPipeline"),
    network="PixArtTransformer2DModel",
    steps=20,
    guidance_scale=4.5,
    call=_AS_ASKED,
)
SANA = Architecture(
    id="sana",
    name="Sana",
    pipelines=("SanaPipeline",),
    network="SanaTransformer2DModel",
    predicts=FLOW,
    steps=20,
    guidance_scale=4.5,
    call=_AS_ASKED,
)
COGVIEW4 = Architecture(
    id="cogview4",
    name="CogView4",
    pipelines=("CogView4Pipeline",),
    network="CogView4Transformer2DModel",
    predicts=FLOW,
    steps=50,
    guidance_scale=5.0,
)
OVIS_IMAGE = Architecture(
    id="ovis-image",
    name="Ovis-Image",
    pipelines=("OvisImagePipeline",),
    network="OvisImageTransformer2DModel",
    predicts=FLOW,
    steps=50,
    guidance_scale=5.0,
)
ERNIE_IMAGE = Architecture(
    id="ernie-image",
    name="ERNIE-Image",
    pipelines=("ErnieImagePipeline",),
    network="ErnieImageTransformer2DModel",
    predicts=FLOW,
    steps=50,
    guidance_scale=4.0,
    unused_parts=frozenset({"pe", "pe_tokenizer"}),  # which write another prompt
    call={"use_pe": False},
)
IDEOGRAM4 = Architecture(
    id="ideogram4",
    name="Ideogram 4",
    pipelines=("Ideogram4Pipeline",),
    network="Ideogram4Transformer2DModel",
    predicts=FLOW,
    steps=48,
    guidance_scale=7.0,
    call={"guidance_schedule": None},  # one of its own, beside which it takes no other guidance
)

ROWS = (
    *(
        SD1,
        SD2,
        SDXL,
        SD1_INPAINTING,
        SD2_INPAINTING,
        SDXL_INPAINTING,
        SD3,
        FLUX2,
        FLUX,
        FLUX_KONTEXT,
        FLUX_FILL,
        POCKET,
        LCM,
        HUNYUAN_DIT,
        CHROMA,
        AURAFLOW,
        LUMINA2,
    ),
    *(
        ZIMAGE,
        QWEN_IMAGE,
        QWEN_IMAGE_EDIT,
        QWEN_IMAGE_EDIT_PLUS,
        KREA2,
        PIXART,
        SANA,
        COGVIEW4,
        OVIS_IMAGE,
        ERNIE_IMAGE,
        IDEOGRAM4,
    ),
)

UNKNOWN = Architecture(id="")
UPSCALER = Architecture(id="upscaler", name="an upscaler", family="upscaler", steps=0, guidance_scale=0.0)

# Single files that craft cannot draw with, by what they are. These are looked for before the rows' checkpoints ...
_REFINER, _UPSCALER = ("*attn2.to_k.weight", -1, 1280), ("*attn2.to_k.weight", -1, 1024)
STRANGERS: dict[str, tuple[Mark, ...]] = {
    **controls.STRANGERS,
    "Playground v2.5, whose noise schedule craft does not have": _marks("edm_mean"),
    "CosXL, whose noise schedule craft does not have": _marks("edm_vpred."),
    "the refiner of Stable Diffusion XL, which needs a picture to begin with": (
        *_marks("label_emb.", side=_REFINER),
        *_marks("add_embedding.", side=_REFINER, prefixes=("unet.", "")),
    ),
    "an upscaler of Stable Diffusion, which needs a picture to begin with": _marks("label_emb.", side=_UPSCALER),
    **{
        f"{name}, which craft draws with as a diffusers folder, if at all": _marks(*beginnings)
        for name, *beginnings in (
            ("HiDream", "double_stream_blocks.0.block."),
            ("Hunyuan Video", "txt_in.individual_token_refiner."),
            ("Wan", "head.modulation"),
            ("Stable Cascade", "clip_txt_mapper.", "down_blocks.1.0.channelwise."),
            ("Sana", "blocks.0.cross_attn.q_linear."),
        )
    },
}
# ... and these after them.
LEFTOVERS: Mapping[str, tuple[Mark, ...]] = {
    "a Stable Diffusion of a size that craft does not know": _marks("input_blocks."),
    "a UNet of a size that craft does not know": (Mark(("down_blocks.", "conv_in."), prefixes=("unet.", "")),),
    "a Stable Diffusion 3 of a size that craft does not know": _marks("joint_blocks.0.context_block."),
    "a transformer that craft knows only as part of a diffusers folder": (
        Mark(("transformer_blocks.", "proj_out."), prefixes=("transformer.", "")),
    ),
    "a FLUX.2 of a size that craft knows only as a diffusers folder": _marks(_OF_FLUX2),
    "a Lumina or a Z-Image of a kind that craft does not know": _marks("cap_embedder."),
    "a text encoder, not a whole model": _marks(
        "text_model.", "encoder.block.", "text_encoders.", "embeddings.token_embedding."
    ),
    "a VAE, not a whole model": _marks("encoder.", "decoder.", "first_stage_model.", "vae."),
}
