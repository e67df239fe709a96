"""Rows of models that draw with a UNet: Stable Diffusion 1, 2 and XL, and pocket."""

from __future__ import annotations

import re
from dataclasses import replace

from craftd.architectures import parts
from craftd.architectures.architecture import (
    BARE_LDM,
    LDM,
    NOISE,
    VELOCITY,
    Architecture,
    Checkpoint,
    Mark,
    Part,
    Training,
)
from craftd.architectures.rows.shared import ATTENTION, INPAINTS, PICTURES, UNUSED_PARTS, named, told_apart, vae_of

_OF_UNETS = PICTURES | {"controls", "clip_skip", "guidance_rescale", "embeddings"}  # and embeddings

_OF_SDXL = _OF_UNETS | {"original_width", "original_height", "crop_left", "crop_top"}

# A UNet that takes its words through the timestep's embedding too, as pocket does, is hardly steered by attention.
WHOLE = (
    *ATTENTION,
    *("ff.net.0.proj", "ff.net.2", "proj_in", "proj_out", "add_embedding.proj"),
    *("conv1", "conv2", "conv_shortcut", "time_emb_proj"),
)

_UNET_VARIANTS = {
    8: "the picture-editing variant of {}",
    5: "the depth variant of {}",
}


def _unet(
    width: int, folder: str, *encoders: Part, is_xl: bool = False, v_folder: str = "", channels: int = 4
) -> tuple[Checkpoint, ...]:
    """The two layouts of a Stable Diffusion whose UNet attends to text of that width; `channels`: that it takes."""
    cross, vae = ("*attn2.to_k.weight", -1, width), vae_of(parts.SDXL_VAE if is_xl else parts.SD_VAE)
    original = Mark(*told_apart("label_emb.", "input_blocks.0.0.", is_there=is_xl), cross, (LDM, BARE_LDM))
    diffusers = Mark(*told_apart("add_embedding.", "conv_in.", "down_blocks.", is_there=is_xl), cross, ("unet.", ""))
    return (
        Checkpoint(folder, original, (vae, *encoders), (), ("input_blocks.0.0.weight", channels), v_folder),
        Checkpoint(folder, diffusers, named(vae, *encoders), (), ("conv_in.weight", channels), v_folder),
    )


_SD1_TEXT = Part("the text encoder", ("cond_stage_model.transformer.",), "text_encoder", parts.CLIP_L)

_SD2_TEXT = Part("the text encoder", ("cond_stage_model.model.",), "text_encoder")

_SDXL_TEXTS = (
    Part("the text encoder CLIP-L", ("conditioner.embedders.0.transformer.",), "text_encoder", parts.CLIP_L),
    Part("the text encoder OpenCLIP-G", ("conditioner.embedders.1.model.",), "text_encoder_2", parts.CLIP_G),
)

_REFINER_TEXT = Part("the text encoder OpenCLIP-G", ("conditioner.embedders.0.model.",), "text_encoder_2", parts.CLIP_G)

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
        ATTENTION, ("text_encoder",), batch_size=4, resolution=512, min_snr_gamma=5, gradient_checkpointing=False
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
        ATTENTION, ("text_encoder",), batch_size=4, resolution=768, min_snr_gamma=5, gradient_checkpointing=False
    ),
)

SDXL = Architecture(
    id="sdxl",
    name="Stable Diffusion XL",
    pipelines=("StableDiffusionXLPipeline",),
    family="sdxl",
    takes=_OF_SDXL | {"refiner"},
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
    training=Training(ATTENTION, ("text_encoder", "text_encoder_2"), min_snr_gamma=5),
)

SD1_INPAINTING = replace(
    SD1,
    name="Stable Diffusion 1 inpainting",
    pipelines=("StableDiffusionInpaintPipeline",),
    checkpoints=_unet(768, "sd1-inpainting", _SD1_TEXT, channels=9),
    **INPAINTS,
)

SD2_INPAINTING = replace(
    SD2,
    name="Stable Diffusion 2 inpainting",
    pipelines=SD1_INPAINTING.pipelines,
    predicts=NOISE,
    checkpoints=_unet(1024, "sd2-inpainting", _SD2_TEXT, channels=9),
    **INPAINTS,
)

SDXL_INPAINTING = replace(
    SDXL,
    name="Stable Diffusion XL inpainting",
    pipelines=("StableDiffusionXLInpaintPipeline",),
    checkpoints=_unet(2048, "sdxl-inpainting", *_SDXL_TEXTS, is_xl=True, channels=9),
    **INPAINTS,
)

SDXL_REFINER = Architecture(
    id="sdxl-refiner",
    name="Stable Diffusion XL's refiner",
    pipelines=("StableDiffusionXLImg2ImgPipeline",),
    family="sdxl-refiner",
    takes=_OF_SDXL - {"controls", "embeddings"},
    needs=frozenset({"start"}),
    network=SD1.network,
    text_width=1280,
    steps=SDXL.steps,
    guidance_scale=SDXL.guidance_scale,
    unused_parts=UNUSED_PARTS,
    runs_in_fp16=True,
    checkpoints=_unet(1280, "sdxl-refiner", _REFINER_TEXT, is_xl=True),
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
