"""Checkpoints whose tensors have the right names and shapes, and almost no bytes: for what reads headers alone."""

from __future__ import annotations

from pathlib import Path

from tests.raw_safetensors import safetensors

_LDM = "model.diffusion_model."
Shapes = dict[str, tuple[int, ...]]


def _clip(layers: int, width: int) -> Shapes:
    named: Shapes = {f"text_model.encoder.layers.{n}.mlp.fc1.bias": (0,) for n in range(layers)}
    return named | {"text_model.embeddings.token_embedding.weight": (0, width)}


def _vae(channels: int) -> Shapes:
    return {
        "encoder.down.0.block.0.conv1.weight": (0, 128, 3, 3),
        "decoder.up.0.block.0.conv1.weight": (0, 128, 3, 3),
        "decoder.conv_in.weight": (0, channels, 3, 3),
    }


def _t5() -> Shapes:
    named: Shapes = {f"encoder.block.{n}.layer.0.SelfAttention.k.weight": (0,) for n in range(24)}
    return named | {"shared.weight": (0, 4096)}


def _behind(prefix: str, shapes: Shapes) -> Shapes:
    """As parts lie in whole checkpoints."""
    return {prefix + name: shape for name, shape in shapes.items()}


_VAE = _behind("first_stage_model.", _vae(4))
_CLIP_L = _behind("cond_stage_model.transformer.", _clip(12, 768))
_OPEN_CLIP: Shapes = {"cond_stage_model.model.ln_final.weight": (1024,)}
_SD3_TEXT: Shapes = {
    **_behind("text_encoders.clip_l.transformer.", _clip(12, 768)),
    **_behind("text_encoders.clip_g.transformer.", _clip(32, 1280)),
}
_T5 = _behind("text_encoders.t5xxl.transformer.", _t5())
_XL_TEXT: Shapes = {
    **_behind("conditioner.embedders.0.transformer.", _clip(12, 768)),
    "conditioner.embedders.1.model.ln_final.weight": (1280,),
}
_REFINER_TEXT: Shapes = {"conditioner.embedders.0.model.ln_final.weight": (1280,)}


def _unet(channels: int, width: int, *, is_xl: bool = False) -> Shapes:
    found: Shapes = {
        f"{_LDM}input_blocks.0.0.weight": (0, channels, 3, 3),
        f"{_LDM}input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight": (0, width),
    }
    return found | ({f"{_LDM}label_emb.0.0.weight": (0, 2816)} if is_xl else {})


def _sd3(blocks: int, positions: int, prefix: str = _LDM) -> Shapes:
    named: Shapes = {f"{prefix}joint_blocks.{n}.context_block.adaLN_modulation.1.bias": (0,) for n in range(blocks)}
    return named | {f"{prefix}pos_embed": (0, positions, 1536)}


def _flux(channels: int, *, has_guidance: bool, prefix: str = _LDM) -> Shapes:
    found: Shapes = {
        f"{prefix}img_in.weight": (0, channels),
        f"{prefix}double_blocks.0.img_attn.norm.key_norm.scale": (0,),
    }
    return found | ({f"{prefix}guidance_in.in_layer.bias": (0,)} if has_guidance else {})


_ALL_IN_ONE = {**_behind("vae.", _vae(16)), **_SD3_TEXT, **_T5}


def _z_image(prefix: str) -> Shapes:
    return {
        f"{prefix}cap_embedder.1.weight": (0, 2560),
        f"{prefix}layers.0.adaLN_modulation.0.weight": (0, 256),
        f"{prefix}noise_refiner.0.attention.qkv.weight": (0, 3840),
        f"{prefix}x_embedder.weight": (0, 64),
        f"{prefix}final_layer.linear.weight": (0, 3840),
    }


# Parts alone, as they lie in ComfyUI's folders.
def _control(width: int, *more: str) -> Shapes:
    """A ControlNet in diffusers' layout."""
    named: Shapes = {f"{name}.weight": (0, 4) for name in ("conv_in", "controlnet_down_blocks.0", *more)}
    named |= {"controlnet_cond_embedding.conv_in.weight": (0, 3)}
    return named | {"mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight": (0, width)}


def _flux_control() -> Shapes:
    named: Shapes = {f"{name}.weight": (0, 64) for name in ("controlnet_x_embedder", "x_embedder", "context_embedder")}
    return named | {f"{name}.0.weight": (0,) for name in ("controlnet_blocks", "transformer_blocks")}


def _language_model(layers: int, width: int, name: str) -> Shapes:
    return {
        **{f"model.layers.{n}.self_attn.{name}.weight": (0,) for n in range(layers)},
        "model.embed_tokens.weight": (0, width),
    }


PARTS: dict[str, Shapes] = {
    "control-sd1": _control(768),
    "control-sd2": _control(1024),
    "control-sdxl": _control(2048, "add_embedding.linear_1"),
    "control-sd1:t2i-adapter": {"body.0.block1.weight": (0, 4), "conv_in.weight": (0, 192)},
    "control-sdxl:t2i-adapter": {"adapter.body.0.resnets.0.block1.weight": (0, 4), "adapter.conv_in.weight": (0, 768)},
    "control-flux": _flux_control(),
    "control-sd3": {
        **{f"{name}.0.weight": (0,) for name in ("controlnet_blocks", "transformer_blocks")},
        "pos_embed_input.proj.weight": (0, 16, 2, 2),
    },
    "control-qwen-image": {
        **{f"{name}.0.weight": (0,) for name in ("controlnet_blocks", "transformer_blocks", "img_in")},
        "controlnet_x_embedder.weight": (0, 64),
    },
    "control-z-image": {
        f"{name}.weight": (0, 4) for name in ("control_all_x_embedder.2-1", "control_layers.0.before_proj")
    },
    "control-flux:union": _flux_control() | {"controlnet_mode_embedder.weight": (0, 4)},
    "clip-l": _clip(12, 768),
    "clip-g": _clip(32, 1280),
    "t5-xxl": _t5(),
    "qwen3-4b": _language_model(36, 2560, "q_norm"),
    "qwen3-8b": _language_model(36, 4096, "q_norm"),
    "qwen2.5-vl-7b": _language_model(28, 3584, "q_proj") | {"visual.patch_embed.proj.weight": (0,)},
    "qwen3-vl-4b": _language_model(36, 2560, "q_norm") | {"visual.patch_embed.proj.weight": (0,)},
    "vae-16": _vae(16),
    "vae-4": _vae(4),
    "vae-qwen-image": {
        "encoder.downsamples.0.residual.0.gamma": (0,),
        "decoder.upsamples.0.residual.0.gamma": (0,),
        "decoder.conv1.weight": (0, 16),
        "conv2.weight": (0, 16),
    },
}

KINDS: dict[str, Shapes] = {
    **PARTS,
    "sd3-control": {"controlnet_blocks.0.weight": (0,), "pos_embed_input.proj.weight": (0,)},
    "flux-control": {"controlnet_blocks.0.weight": (0,), "x_embedder.weight": (0, 64)},
    "union-control": _control(2048, "add_embedding.linear_1", "control_add_embedding.linear_1"),
    "adapter": {"adapter.body.0.resnets.0.block1.weight": (0,)},
    "z-image": _z_image("model.diffusion_model."),
    "z-image-bare": _z_image(""),
    "z-image-prefixed": _z_image("diffusion_model."),
    "flux2-klein-9b": {
        **{f"double_blocks.{n}.img_attn.proj.weight": (0,) for n in range(8)},
        **{"single_stream_modulation.lin.weight": (0, 4096), "txt_in.weight": (0, 12288)},
    },
    "qwen-image-alone": {
        **{f"model.diffusion_model.transformer_blocks.{n}.img_mod.1.weight": (0,) for n in range(60)},
        **{f"model.diffusion_model.{name}.weight": (0, 3584) for name in ("txt_norm", "img_in", "txt_in")},
    },
    "krea2-alone": {
        **{f"blocks.{n}.attn.wq.weight": (0,) for n in range(28)},
        **{f"{name}.weight": (0, 64) for name in ("txtfusion.projector", "first", "last.linear")},
    },
    "sd3.5-medium-bare": _sd3(24, 147456, ""),
    "sdxl-alone": _unet(4, 2048, is_xl=True),
    "sd1": _unet(4, 768) | _VAE | _CLIP_L,
    "sd1-inpainting": _unet(9, 768) | _VAE | _CLIP_L,
    "sd1-edit": _unet(8, 768) | _VAE | _CLIP_L,
    "sd2": _unet(4, 1024) | _VAE | _OPEN_CLIP,
    "sdxl": _unet(4, 2048, is_xl=True) | _VAE | _XL_TEXT,
    "sdxl-inpainting": _unet(9, 2048, is_xl=True) | _VAE | _XL_TEXT,
    "sdxl-refiner": _unet(4, 1280, is_xl=True) | _VAE | _REFINER_TEXT,
    "playground": _unet(4, 2048, is_xl=True) | _VAE | _XL_TEXT | {"edm_mean": (0,)},
    "sdxl-vpred": _unet(4, 2048, is_xl=True) | _VAE | _XL_TEXT | {"v_pred": (0,)},
    "sd3-medium": _sd3(24, 36864) | _VAE | _SD3_TEXT | _T5,
    "sd3.5-medium": _sd3(24, 147456) | _VAE | _SD3_TEXT,
    "sd3.5-large": _sd3(38, 36864) | _VAE | _SD3_TEXT,
    "sd3.5-large-bare": _sd3(38, 36864, ""),
    "flux-dev": _flux(64, has_guidance=True) | _ALL_IN_ONE,
    "flux-schnell": _flux(64, has_guidance=False) | _ALL_IN_ONE,
    "flux-dev-bare": _flux(64, has_guidance=True, prefix=""),
    "flux-fill": _flux(384, has_guidance=True, prefix=""),
    "chroma": _flux(64, has_guidance=False, prefix="") | {"distilled_guidance_layer.in_proj.bias": (0,)},
    "lora": {"lora_unet_down_blocks_0.lora_down.weight": (4, 0)},
    "vae": {"encoder.conv_in.weight": (0, 3, 3, 3), "decoder.conv_in.weight": (0, 4, 3, 3)},
    "auraflow": {"double_layers.0.attn.w2q.weight": (0,), "cond_seq_linear.weight": (0,)},
    "fp8-scaled": _flux(64, has_guidance=True) | _ALL_IN_ONE | {"scaled_fp8": (0,)},
    "sdxl-diffusers": {
        "unet.conv_in.weight": (0, 4, 3, 3),
        "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight": (0, 2048),
        "unet.add_embedding.linear_1.weight": (0, 2816),
        "vae.decoder.conv_in.weight": (0, 4, 3, 3),
        "text_encoder.text_model.final_layer_norm.weight": (768,),
        "text_encoder_2.text_model.final_layer_norm.weight": (1280,),
    },
    "sd1-unet-alone": {
        "conv_in.weight": (0, 4, 3, 3),
        "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight": (0, 768),
    },
    "flux-diffusers-alone": {
        "transformer_blocks.0.attn.to_q.weight": (0, 3072),
        "single_transformer_blocks.0.attn.to_q.weight": (0, 3072),
        "x_embedder.weight": (0, 64),
        "proj_out.weight": (64, 0),
    },
}


def write_checkpoint(
    path: Path, kind: str, *, without: tuple[str, ...] = (), metadata: dict[str, str] | None = None, dtype: str = "F16"
) -> Path:
    """A file of that kind; sides of nought keep it small."""
    header: dict[str, object] = {"__metadata__": metadata or {}}
    end = 0
    for name, shape in KINDS[kind].items():
        if name.startswith(without or ("\0",)):
            continue
        count = 1
        for side in shape:
            count *= side
        start, end = end, end + 2 * count
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(safetensors(header, bytes(end)))
    return path
