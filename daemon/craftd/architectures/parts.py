"""Kinds of parts that lie in files of their own: text encoders and VAEs, by what their headers show.

`files` are what such a file is called elsewhere, `published` is where it can be got, as `craft models pull` takes it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from craftd.architectures import controls
from craftd.architectures.architecture import Mark, PartKind
from craftd.architectures.upscalers import Upscaling

TEXT_ENCODER, VAE = "text encoder", "vae"

_CLIP_PREFIXES = ("", "text_encoders.clip_l.transformer.", "text_encoders.clip_g.transformer.", "text_encoder.")
_CLIP_WIDTH = "text_model.embeddings.token_embedding.weight"
_FLUX_ENCODERS = "comfyanonymous/flux_text_encoders"
_Z_IMAGE = "Comfy-Org/z_image_turbo"
_QWEN_IMAGE = "Comfy-Org/Qwen-Image_ComfyUI"
_OF_VIDEOS = "decoder.mid_block.resnets.0.norm1.gamma"  # of an autoencoder of videos, in diffusers' layout

CLIP_L = PartKind(
    id="clip-l",
    name="the text encoder CLIP-L",
    role=TEXT_ENCODER,
    mark=Mark(
        ("text_model.encoder.layers.11.",), ("text_model.encoder.layers.12.",), (_CLIP_WIDTH, 1, 768), _CLIP_PREFIXES
    ),
    files=("clip_l.safetensors",),
    published=f"{_FLUX_ENCODERS}:clip_l.safetensors",
    vocabulary="clip",
)
CLIP_G = PartKind(
    id="clip-g",
    name="the text encoder CLIP-G",
    role=TEXT_ENCODER,
    mark=Mark(
        ("text_model.encoder.layers.31.",), ("text_model.encoder.layers.32.",), (_CLIP_WIDTH, 1, 1280), _CLIP_PREFIXES
    ),
    files=("clip_g.safetensors",),
    published="Comfy-Org/stable-diffusion-3.5-fp8:text_encoders/clip_g.safetensors",
    vocabulary="clip",
)
T5_XXL = PartKind(
    id="t5-xxl",
    name="the text encoder T5-XXL",
    role=TEXT_ENCODER,
    mark=Mark(
        ("encoder.block.23.",),
        ("encoder.block.24.", "decoder.block."),
        ("shared.weight", 1, 4096),
        ("", "text_encoders.t5xxl.transformer.", "text_encoder."),
    ),
    files=("t5xxl_fp16.safetensors", "t5xxl_fp8_e4m3fn.safetensors"),
    published=f"{_FLUX_ENCODERS}:t5xxl_fp16.safetensors",
    vocabulary="t5",
)
QWEN3_4B = PartKind(
    id="qwen3-4b",
    name="the text encoder Qwen3-4B",
    role=TEXT_ENCODER,
    mark=Mark(
        ("layers.35.self_attn.q_norm.",),
        ("layers.36.",),
        ("embed_tokens.weight", 1, 2560),
        ("model.", "", "text_encoder."),
    ),
    files=("qwen_3_4b.safetensors",),
    published=f"{_Z_IMAGE}:split_files/text_encoders/qwen_3_4b.safetensors",
    vocabulary_repository="Tongyi-MAI/Z-Image-Turbo",
)
QWEN3_8B = PartKind(
    id="qwen3-8b",
    name="the text encoder Qwen3-8B",
    role=TEXT_ENCODER,
    mark=Mark(
        ("layers.35.self_attn.q_norm.",),
        ("layers.36.",),
        ("embed_tokens.weight", 1, 4096),
        ("model.", "", "text_encoder."),
    ),
    files=("qwen_3_8b.safetensors",),
    published="Comfy-Org/Flux-2-Klein-9B:split_files/text_encoders/qwen_3_8b.safetensors",
    vocabulary_repository=QWEN3_4B.vocabulary_repository,
)
# Language models that see: their layers of words lie beside those of pictures, or behind a name of their own.
QWEN25_VL_7B = PartKind(
    id="qwen2.5-vl-7b",
    name="the text encoder Qwen2.5-VL-7B",
    role=TEXT_ENCODER,
    mark=Mark(
        ("model.layers.27.self_attn.q_proj.", "visual."),
        ("model.layers.28.",),
        ("model.embed_tokens.weight", 1, 3584),
        ("",),
    ),
    files=("qwen_2.5_vl_7b.safetensors", "qwen_2.5_vl_7b_fp8_scaled.safetensors"),
    published=f"{_QWEN_IMAGE}:split_files/text_encoders/qwen_2.5_vl_7b.safetensors",
    vocabulary_repository="Qwen/Qwen-Image",
)
QWEN3_VL_4B = PartKind(
    id="qwen3-vl-4b",
    name="the text encoder Qwen3-VL-4B",
    role=TEXT_ENCODER,
    mark=Mark(
        ("model.layers.35.self_attn.q_norm.", "visual."),
        ("model.layers.36.",),
        ("model.embed_tokens.weight", 1, 2560),
        ("",),
    ),
    files=("qwen3vl_4b_bf16.safetensors", "qwen3vl_4b_fp8_scaled.safetensors"),
    published="Comfy-Org/Krea-2:text_encoders/qwen3vl_4b_bf16.safetensors",
    vocabulary_repository=QWEN3_4B.vocabulary_repository,
)
# VAEs of one shape have other weights in other architectures: only their files' names tell them apart.
FLUX_VAE = PartKind(
    id="vae-16",
    name="the VAE of FLUX.1",
    role=VAE,
    mark=Mark(
        ("encoder.down", "decoder.up"),
        ("bn.", _OF_VIDEOS),
        ("decoder.conv_in.weight", 1, 16),
        ("", "first_stage_model.", "vae."),
    ),
    files=("ae.safetensors", "flux_ae.safetensors", "flux_vae.safetensors"),
    published=f"{_Z_IMAGE}:split_files/vae/ae.safetensors",
    is_told_by_name=True,
)
SD3_VAE = PartKind(
    id="vae-16",
    name="the VAE of Stable Diffusion 3",
    role=VAE,
    mark=FLUX_VAE.mark,
    files=("sd3_vae.safetensors", "sd35_vae.safetensors", "sd3.5_vae.safetensors"),
    published="the folder vae of stabilityai/stable-diffusion-3.5-large",
    is_told_by_name=True,
)
FLUX2_VAE = PartKind(
    id="vae-32",
    name="the VAE of FLUX.2",
    role=VAE,
    mark=Mark(
        ("encoder.down", "decoder.up", "bn."),
        (),
        ("decoder.conv_in.weight", 1, 32),
        ("", "first_stage_model.", "vae."),
    ),
    files=("flux2-vae.safetensors",),
    published="Comfy-Org/Flux-2-Klein-4B:split_files/vae/flux2-vae.safetensors",
)
QWEN_IMAGE_VAE = PartKind(
    id="vae-qwen-image",
    name="the VAE of Qwen-Image",
    role=VAE,
    mark=Mark(
        ("encoder.downsamples.", "decoder.upsamples.", "conv2."),
        (),
        ("decoder.conv1.weight", 1, 16),
        ("", "first_stage_model.", "vae."),
    ),
    files=("qwen_image_vae.safetensors",),
    published=f"{_QWEN_IMAGE}:split_files/vae/qwen_image_vae.safetensors",
    is_told_by_name=True,  # a model of videos has one of this shape
)
SD_VAE = PartKind(
    id="vae-4",
    name="the VAE",
    role=VAE,
    mark=Mark(
        ("encoder.down", "decoder.up"), ("bn.",), ("decoder.conv_in.weight", 1, 4), ("", "first_stage_model.", "vae.")
    ),
    files=("vae-ft-mse-840000-ema-pruned.safetensors",),
    published="stabilityai/sd-vae-ft-mse",
    is_told_by_name=True,
)
SDXL_VAE = PartKind(
    id="vae-4",
    name="the VAE of Stable Diffusion XL",
    role=VAE,
    mark=SD_VAE.mark,
    files=("sdxl_vae.safetensors", "sdxl.vae.safetensors", "sdxl_vae_fp16_fix.safetensors"),
    published="madebyollin/sdxl-vae-fp16-fix",
    is_told_by_name=True,
)


def _named_apart(kind: PartKind) -> PartKind:
    """The same in the layout in which the layers of words have a name of their own."""
    assert kind.mark.side is not None
    (words, seeing), (beyond,), (embedding, axis, width) = kind.mark.has, kind.mark.lacks, kind.mark.side
    own = [name.replace("model.", "language_model.") for name in (words, beyond, embedding)]
    return replace(kind, mark=Mark((own[0], seeing), (own[1],), (own[2], axis, width), ("model.", "")))


_DIFFUSERS_QWEN_IMAGE_VAE = replace(
    QWEN_IMAGE_VAE,
    mark=Mark(
        ("encoder.down_blocks.", "decoder.up_blocks.", _OF_VIDEOS),
        (),
        ("decoder.conv_in.weight", 1, 16),
        ("", "vae."),
    ),
)

# Layouts are kinds of one id; the first of an id is what is told of it.
KINDS = (
    *(CLIP_L, CLIP_G, T5_XXL, QWEN25_VL_7B, _named_apart(QWEN25_VL_7B), QWEN3_VL_4B, _named_apart(QWEN3_VL_4B)),
    *(QWEN3_4B, QWEN3_8B, FLUX_VAE, FLUX2_VAE, QWEN_IMAGE_VAE, _DIFFUSERS_QWEN_IMAGE_VAE, SD_VAE, *controls.KINDS),
)
_SHOWN = {"vae-16": "a VAE of 16 channels", "vae-4": "a VAE of 4 channels"}


@dataclass(frozen=True)
class FoundPart:
    """What a file is that holds one part alone, and how its tensors' names begin."""

    kind: PartKind
    prefix: str

    @property
    def shown(self) -> str:
        return _SHOWN.get(self.kind.id, self.kind.name)


def by_id(kind: str) -> PartKind | None:
    return next((one for one in KINDS if one.id == kind), None)


def shown(kind: str) -> str:
    """What a kind of parts is called, where no architecture is at hand."""
    if (upscaling := Upscaling.of(kind)) is not None:
        return upscaling.shown
    found = by_id(kind)
    return FoundPart(found, "").shown if found is not None else kind
