"""Which architecture a checkpoint of one file is, told from its tensors' names and shapes alone.

Two layouts: the original one (what the models' makers published, and most of the web exchanges), and diffusers' with
each part under its name ("unet.", "vae.", ...). What cannot be drawn with is refused by its name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from craft_protos.reasons import CraftError

from craftd.models.header import Header

_LDM = "model.diffusion_model."
_FIRST_CONV = f"{_LDM}input_blocks.0.0.weight"


@dataclass(frozen=True)
class Part:
    """What the file must hold for one part of the pipeline: tensors with any of these beginnings."""

    name: str
    prefixes: tuple[str, ...]


@dataclass(frozen=True)
class Architecture:
    """`key` names the folder of configurations. `parts` must be there; `optional` may be."""

    key: str
    parts: tuple[Part, ...]
    optional: tuple[Part, ...] = ()

    def missing(self, header: Header) -> list[str]:
        return [part.name for part in self.parts if not header.has(*part.prefixes)]

    def left_out(self, header: Header) -> list[str]:
        return [part.name for part in self.optional if not header.has(*part.prefixes)]


def recognise(header: Header, file_name: str) -> Architecture:
    """Raises UNSUPPORTED_MODEL, naming what it is where that can be told."""
    for tell in (_adapter, _diffusers, _stable_diffusion, _stable_diffusion_3, _flux):
        found = tell(header, file_name)
        if found is not None:
            return found
    raise _unsupported(
        file_name,
        _name_of(header) or "its tensors are those of no architecture that craft knows",
    )


def check_whole(architecture: Architecture, header: Header, file_name: str) -> None:
    """Raises UNSUPPORTED_MODEL naming the parts that a file lacks."""
    missing = architecture.missing(header)
    if missing:
        raise CraftError(
            "UNSUPPORTED_MODEL",
            f"{file_name}: {architecture.key} without {' and '.join(missing)}: only a checkpoint that has every part "
            "can be drawn with",
            "get the whole checkpoint, or the model's diffusers folder: craft models pull ORG/NAME",
        )


# Original layouts


def _stable_diffusion(header: Header, file_name: str) -> Architecture | None:
    channels = header.side(_FIRST_CONV, 1)
    if not channels:
        return None
    if header.has("control_model."):
        raise _unsupported(file_name, "it is a ControlNet, which belongs to a model and is none itself")
    width, is_xl = _text_width(header), header.has(f"{_LDM}label_emb.")
    name = _LDM_NAMES.get((is_xl, width), "a Stable Diffusion of a size that craft does not know")
    if channels != 4:
        raise _unsupported(file_name, f"it is {_purpose(channels)} of {name}, which needs more than a prompt")
    if is_xl and width == 2048 and header.has("edm_mean"):
        raise _unsupported(file_name, "it is Playground v2.5, whose noise schedule craft does not have")
    if is_xl and width == 2048:
        return _sdxl(_is_v_prediction(header, file_name, unsaid=False))
    if width == 1024 and not is_xl:
        return _sd2(_is_v_prediction(header, file_name, unsaid=True))
    if width == 768 and not is_xl:
        return _sd1()
    raise _unsupported(file_name, f"it is {name}")


def _stable_diffusion_3(header: Header, file_name: str) -> Architecture | None:
    for prefix in (_LDM, ""):
        blocks = header.count(f"{prefix}joint_blocks.")
        if blocks and header.has(f"{prefix}joint_blocks.0.context_block."):
            key = _SD3_KEYS.get((blocks, header.side(f"{prefix}pos_embed", 1)))
            if key is None:
                raise _unsupported(
                    file_name, f"it is a Stable Diffusion 3 of {blocks} blocks, which craft has not seen"
                )
            return Architecture(
                key,
                (
                    Part("the transformer", (f"{prefix}joint_blocks.",)),
                    Part("the VAE", ("first_stage_model.", "vae.")),
                    Part("the text encoder CLIP-L", ("text_encoders.clip_l.",)),
                    Part("the text encoder CLIP-G", ("text_encoders.clip_g.",)),
                ),
                (Part("text_encoder_3", ("text_encoders.t5xxl.",)),),
            )
    return None


def _flux(header: Header, file_name: str) -> Architecture | None:
    for prefix in (_LDM, ""):
        channels = header.side(f"{prefix}img_in.weight", 1)
        if not channels or not header.has(f"{prefix}double_blocks.0.img_attn."):
            continue
        if header.has(f"{prefix}distilled_guidance_layer."):
            raise _unsupported(file_name, "it is Chroma; as a diffusers folder the generic family may draw with it")
        if channels != 64:
            raise _unsupported(file_name, f"it is {_FLUX_TOOLS.get(channels, 'a variant of FLUX.1')}")
        return Architecture(
            "flux-dev" if header.has(f"{prefix}guidance_in.") else "flux-schnell",
            (
                Part("the transformer", (f"{prefix}double_blocks.",)),
                Part("the VAE", ("vae.", "first_stage_model.")),
                Part("the text encoder CLIP-L", ("text_encoders.clip_l.",)),
                Part("the text encoder T5", ("text_encoders.t5xxl.",)),
            ),
        )
    return None


_LDM_NAMES = {
    (False, 768): "Stable Diffusion 1",
    (False, 1024): "Stable Diffusion 2",
    (True, 2048): "Stable Diffusion XL",
    (True, 1280): "the refiner of Stable Diffusion XL, which needs a picture to begin with",
    (True, 1024): "an upscaler of Stable Diffusion, which needs a picture to begin with",
}
_SD3_KEYS = {(24, 36864): "sd3-medium", (24, 147456): "sd3.5-medium", (38, 36864): "sd3.5-large"}
_FLUX_TOOLS = {384: "FLUX.1 Fill, which needs a picture", 128: "FLUX.1 Depth or Canny, which needs a picture"}


def _sd1() -> Architecture:
    return Architecture("sd1", (*_LDM_PARTS, Part("the text encoder", ("cond_stage_model.transformer.",))))


def _sd2(is_v: bool) -> Architecture:
    text = Part("the text encoder", ("cond_stage_model.model.",))
    return Architecture("sd2-v" if is_v else "sd2", (*_LDM_PARTS, text))


def _sdxl(is_v: bool) -> Architecture:
    texts = (
        Part("the text encoder CLIP-L", ("conditioner.embedders.0.transformer.",)),
        Part("the text encoder OpenCLIP-G", ("conditioner.embedders.1.model.",)),
    )
    return Architecture("sdxl-v" if is_v else "sdxl", (*_LDM_PARTS, *texts))


_LDM_PARTS = (Part("the UNet", (_LDM,)), Part("the VAE", ("first_stage_model.", "vae.")))


def _text_width(header: Header) -> int:
    """Of what the UNet's cross-attention reads."""
    suffix = "attn2.to_k.weight"
    return next(
        (shape[-1] for name, shape in header.shapes.items() if name.startswith(_LDM) and name.endswith(suffix)), 0
    )


def _is_v_prediction(header: Header, file_name: str, *, unsaid: bool) -> bool:
    """Both kinds have the same tensors: by a mark, the file's own notes, its name, else what is usual."""
    if header.has("v_pred"):
        return True
    said = " ".join(header.metadata.get(key, "") for key in _NOTES).strip().lower() or file_name.lower()
    if any(word in said for word in ("768-v", "768v", "v-pred", "v_pred", "vpred", "v prediction", "768x768")):
        return True
    if any(word in said for word in ("epsilon", "eps", "512", "base", "turbo")):
        return False
    return unsaid


_NOTES = ("modelspec.prediction_type", "modelspec.predict_key", "modelspec.architecture", "modelspec.resolution")


# diffusers' layout


def _diffusers(header: Header, file_name: str) -> Architecture | None:
    prefix = "unet." if header.has("unet.") else ""
    if header.has(f"{prefix}down_blocks.") and header.has(f"{prefix}conv_in."):
        return _diffusers_unet(header, file_name, prefix)
    prefix = "transformer." if header.has("transformer.") else ""
    if header.has(f"{prefix}transformer_blocks.") and header.has(f"{prefix}proj_out."):
        return _diffusers_transformer(header, file_name, prefix)
    return None


def _diffusers_unet(header: Header, file_name: str, prefix: str) -> Architecture:
    channels = header.side(f"{prefix}conv_in.weight", 1)
    suffix = "attn2.to_k.weight"
    width = next((shape[-1] for name, shape in header.shapes.items() if name.endswith(suffix)), 0)
    is_xl = header.has(f"{prefix}add_embedding.")
    name = _LDM_NAMES.get((is_xl, width), "a UNet of a size that craft does not know")
    if channels != 4:
        raise _unsupported(file_name, f"it is {_purpose(channels)} of {name}, which needs more than a prompt")
    texts = ["text_encoder", "text_encoder_2"] if is_xl else ["text_encoder"]
    parts = _named_parts(prefix or "down_blocks.", "unet", ["vae", *texts])
    if is_xl and width == 2048:
        return Architecture("sdxl-v" if _is_v_prediction(header, file_name, unsaid=False) else "sdxl", parts)
    if width == 1024 and not is_xl:
        return Architecture("sd2-v" if _is_v_prediction(header, file_name, unsaid=True) else "sd2", parts)
    if width == 768 and not is_xl:
        return Architecture("sd1", parts)
    raise _unsupported(file_name, f"it is {name}")


def _diffusers_transformer(header: Header, file_name: str, prefix: str) -> Architecture:
    own = prefix or "transformer_blocks."
    if header.has(f"{prefix}single_transformer_blocks."):
        if header.side(f"{prefix}x_embedder.weight", 1) != 64 or header.has(f"{prefix}distilled_guidance_layer."):
            raise _unsupported(file_name, "it is a variant of FLUX.1 that craft does not draw with")
        key = "flux-dev" if header.has(f"{prefix}time_text_embed.guidance_embedder.") else "flux-schnell"
        return Architecture(key, _named_parts(own, "transformer", ["vae", "text_encoder", "text_encoder_2"]))
    side = header.side(f"{prefix}pos_embed.pos_embed", 1)
    known = _SD3_KEYS.get((header.count(f"{prefix}transformer_blocks."), side))
    if known is None:
        raise _unsupported(file_name, "it is a transformer that craft knows only as part of a diffusers folder")
    parts = _named_parts(own, "transformer", ["vae", "text_encoder", "text_encoder_2"])
    return Architecture(known, parts, (Part("text_encoder_3", ("text_encoder_3.",)),))


def _named_parts(own: str, name: str, others: Sequence[str]) -> tuple[Part, ...]:
    return (Part(name, (own,)), *(Part(f"its {other}", (f"{other}.",)) for other in others))


# What it is, where craft cannot draw with it


def _adapter(header: Header, file_name: str) -> Architecture | None:
    if any(name.startswith("lora_") or ".lora_" in name or "lora_A" in name for name in header.shapes):
        raise CraftError("UNSUPPORTED_MODEL", f"{file_name}: it is a LoRA, not a model", "add it: craft lora add FILE")
    if any(name.endswith((".scale_weight", ".comfy_quant")) or name == "scaled_fp8" for name in header.shapes):
        raise _unsupported(file_name, "its weights are quantized, which craft does not draw with yet")
    return None


def _name_of(header: Header) -> str:
    for name, marks in _STRANGERS.items():
        if any(header.has(mark, f"{_LDM}{mark}") for mark in marks):
            return f"it is {name}, which craft draws with as a diffusers folder, if at all"
    if header.has("encoder.", "decoder.", "first_stage_model.", "vae."):
        return "it is a VAE, not a whole model"
    if header.has("text_model.", "encoder.block.", "text_encoders."):
        return "it is a text encoder, not a whole model"
    return ""


_STRANGERS = {
    "AuraFlow": ("double_layers.0.attn.w2q.",),
    "HiDream": ("double_stream_blocks.0.block.",),
    "Lumina or Z-Image": ("cap_embedder.",),
    "Hunyuan Video": ("txt_in.individual_token_refiner.",),
    "Wan": ("head.modulation",),
    "Stable Cascade": ("clip_txt_mapper.", "down_blocks.1.0.channelwise."),
    "Sana": ("blocks.0.cross_attn.q_linear.",),
    "a ControlNet": ("controlnet_cond_embedding.", "control_model."),
    "FLUX.2": ("single_stream_modulation.",),
}


def _purpose(channels: int) -> str:
    return {9: "the inpainting variant", 8: "the picture-editing variant", 5: "the depth variant"}.get(
        channels, "a variant"
    )


def _unsupported(file_name: str, why: str) -> CraftError:
    return CraftError("UNSUPPORTED_MODEL", f"{file_name}: {why}", "`craft models list` shows what can be used")
