"""Kinds of parts that lie in files of their own: text encoders and VAEs, by what their headers show.

`files` are what such a file is called elsewhere, `published` is where it can be got, as `craft models pull` takes it.
"""

from __future__ import annotations

from dataclasses import dataclass

from craftd.architectures import controls
from craftd.architectures.architecture import Mark, PartKind
from craftd.architectures.upscalers import Upscaling

TEXT_ENCODER, VAE = "text encoder", "vae"

_CLIP_PREFIXES = ("", "text_encoders.clip_l.transformer.", "text_encoders.clip_g.transformer.", "text_encoder.")
_CLIP_WIDTH = "text_model.embeddings.token_embedding.weight"
_FLUX_ENCODERS = "comfyanonymous/flux_text_encoders"
_Z_IMAGE = "Comfy-Org/z_image_turbo"

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
# VAEs of one shape have other weights in other architectures: only their files' names tell them apart.
FLUX_VAE = PartKind(
    id="vae-16",
    name="the VAE of FLUX.1",
    role=VAE,
    mark=Mark(
        ("encoder.down", "decoder.up"), ("bn.",), ("decoder.conv_in.weight", 1, 16), ("", "first_stage_model.", "vae.")
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

# One of each id, but for control models, whose layouts are kinds of one id.
KINDS = (CLIP_L, CLIP_G, T5_XXL, QWEN3_4B, FLUX_VAE, FLUX2_VAE, SD_VAE, *controls.KINDS)
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
