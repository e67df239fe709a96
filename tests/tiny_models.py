"""Tiny random models in diffusers' format: real architectures, a few thousand weights, made in seconds.

make(kind, folder)      one model; kinds: those of KINDS
cached(kind)            the same, made once for each machine and version of its sources
python -m tests.tiny_models KIND FOLDER
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests import tiny_flows, tiny_networks
from tests.tiny_networks import FEATURES

KINDS = (
    *("sd", "sd-tiny-vae", "sd-text-time", "lcm", "pixart"),
    *("sdxl", "sdxl-plain", "sd3", "sd3-no-t5", "flux", "flux-schnell", "flux-kontext", "chroma"),
    *("sd-inpainting", "sdxl-inpainting", "flux-fill", "sdxl-refiner"),
    *("z-image", "z-image-turbo", "flux2", "flux2-distilled", "qwen-image", "krea2", "krea2-distilled"),
    *("qwen-image-edit", "qwen-image-edit-plus", "flux2-dev"),
)

_SOURCES = tuple(Path(str(one)) for one in (__file__, tiny_networks.__file__, tiny_flows.__file__))


def cached(kind: str) -> Path:
    """The folder of a tiny model, made if it isn't there. Safe where several processes ask at once."""
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in _SOURCES)).hexdigest()[:12]
    folder = Path(tempfile.gettempdir()) / f"craft-tiny-models-{os.getuid()}-{digest}" / kind
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as beside:
            make(kind, Path(beside) / kind)
            try:
                (Path(beside) / kind).rename(folder)
            except OSError:
                assert folder.exists()  # another process was quicker
    return folder


def without(kind: str) -> dict[str, None]:
    """The parts that diffusers must be told the model does not have."""
    if kind.startswith("qwen-image-edit"):
        return {"processor": None}
    if kind == "flux2-dev":
        return {"tokenizer": None}
    return {"text_encoder_3": None, "tokenizer_3": None} if kind == "sd3-no-t5" else {}


def make(kind: str, folder: Path) -> None:
    """Write a model of `kind` to `folder`. The same weights each time."""
    import torch

    torch.manual_seed(20)
    _MAKERS[kind]().save_pretrained(folder, safe_serialization=True)
    if kind.startswith("qwen-image-edit"):
        _write_processor(folder)
    if kind == "flux2-dev":
        _name_processor(folder, "tokenizer", "PixtralProcessor")


def _name_processor(folder: Path, component: str, processor: str) -> None:
    """As one is published, whose pipeline was made without it."""
    index = json.loads((folder / "model_index.json").read_text())
    index[component] = ["transformers", processor]
    (folder / "model_index.json").write_text(json.dumps(index))


def _write_processor(folder: Path) -> None:
    """As Qwen2-VL's is published, beside a pipeline that was made without it."""
    _name_processor(folder, "processor", "Qwen2VLProcessor")
    (folder / "processor").mkdir()
    (folder / "processor" / "preprocessor_config.json").write_text(json.dumps(tiny_flows.PROCESSOR))


def _sd() -> Any:
    return _stable_diffusion(tiny_networks.autoencoder_kl(), tiny_networks.unet())


def _sd_tiny_vae() -> Any:
    return _stable_diffusion(tiny_networks.autoencoder_tiny(), tiny_networks.unet())


def _sd_text_time() -> Any:
    """As the built-in model is: the text acts through the time embedding too."""
    unet = tiny_networks.unet(addition_embed_type="text", addition_embed_type_num_heads=4, encoder_hid_dim=None)
    return _stable_diffusion(tiny_networks.autoencoder_tiny(), unet)


def _lcm() -> Any:
    from diffusers import LatentConsistencyModelPipeline, LCMScheduler

    return LatentConsistencyModelPipeline(
        vae=tiny_networks.autoencoder_kl(),
        text_encoder=tiny_networks.text_encoder(),
        tokenizer=tiny_networks.tokenizer(),
        unet=tiny_networks.unet(time_cond_proj_dim=16),
        scheduler=LCMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _pixart() -> Any:
    from diffusers import DPMSolverMultistepScheduler, PixArtAlphaPipeline, PixArtTransformer2DModel

    transformer = PixArtTransformer2DModel(
        sample_size=32,
        num_layers=2,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=3,
        caption_channels=FEATURES,
        in_channels=4,
        cross_attention_dim=24,
        out_channels=8,
        attention_bias=True,
        activation_fn="gelu-approximate",
        num_embeds_ada_norm=1000,
        norm_type="ada_norm_single",
        norm_elementwise_affine=False,
        norm_eps=1e-6,
    )
    return PixArtAlphaPipeline(
        tokenizer=tiny_networks.t5_tokenizer(),
        text_encoder=tiny_networks.t5_encoder(FEATURES),
        vae=tiny_networks.autoencoder_kl(),
        transformer=transformer.eval(),
        scheduler=DPMSolverMultistepScheduler(),
    )


def _sd_inpainting() -> Any:
    from diffusers import StableDiffusionInpaintPipeline

    made = _stable_diffusion(tiny_networks.autoencoder_kl(), tiny_networks.unet(in_channels=9))
    return StableDiffusionInpaintPipeline(**made.components, requires_safety_checker=False)


def _sdxl_inpainting() -> Any:
    from diffusers import StableDiffusionXLInpaintPipeline

    return StableDiffusionXLInpaintPipeline(**_sdxl(channels=9).components, add_watermarker=False)


def _sdxl_refiner() -> Any:
    from diffusers import StableDiffusionXLImg2ImgPipeline

    made = _sdxl()
    unet = tiny_networks.unet(
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=5 * 8 + FEATURES,
        cross_attention_dim=FEATURES,
    )
    parts = made.components | {"text_encoder": None, "tokenizer": None, "unet": unet}
    scores = {"requires_aesthetics_score": True, "force_zeros_for_empty_prompt": False}
    return StableDiffusionXLImg2ImgPipeline(**parts, **scores, add_watermarker=False)


def _sdxl(wide: int = FEATURES, channels: int = 4, **more: Any) -> Any:
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline

    unet = tiny_networks.unet(
        in_channels=channels,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + wide,
        cross_attention_dim=FEATURES + wide,
    )
    return StableDiffusionXLPipeline(
        vae=tiny_networks.autoencoder_kl(),
        text_encoder=tiny_networks.text_encoder(),
        text_encoder_2=tiny_networks.text_encoder_with_projection(wide),
        tokenizer=tiny_networks.tokenizer(),
        tokenizer_2=tiny_networks.tokenizer(pad_token="!"),
        unet=unet,
        scheduler=EulerDiscreteScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            timestep_spacing="leading",
            steps_offset=1,
        ),
        add_watermarker=False,
        **more,
    )


def _sd2() -> Any:
    """OpenCLIP's text encoder, linear projections, and velocities for noise."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline
    from transformers import CLIPTextModel

    config = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
    return StableDiffusionPipeline(
        vae=tiny_networks.autoencoder_kl(),
        text_encoder=CLIPTextModel(tiny_networks.clip_config(hidden_act="gelu")).eval(),
        tokenizer=tiny_networks.tokenizer(pad_token="!"),
        unet=tiny_networks.unet(use_linear_projection=True),
        scheduler=DDIMScheduler(prediction_type="v_prediction", clip_sample=False, set_alpha_to_one=False, **config),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _sd3(*, has_t5: bool = True, wide: int = FEATURES) -> Any:
    import torch
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline

    transformer = SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=3 * FEATURES,
        caption_projection_dim=32,
        pooled_projection_dim=FEATURES + wide,
        pos_embed_max_size=24,
    )
    text_encoder = tiny_networks.text_encoder_with_projection()
    if wide != FEATURES:
        torch.nn.init.eye_(text_encoder.text_projection.weight)  # checkpoints have none
    return StableDiffusion3Pipeline(
        transformer=transformer.eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=tiny_networks.autoencoder_kl(shift_factor=0.06),
        text_encoder=text_encoder,
        tokenizer=tiny_networks.tokenizer(),
        text_encoder_2=tiny_networks.text_encoder_with_projection(wide),
        tokenizer_2=tiny_networks.tokenizer(pad_token="!"),
        text_encoder_3=tiny_networks.t5_encoder(3 * FEATURES) if has_t5 else None,
        tokenizer_3=tiny_networks.t5_tokenizer() if has_t5 else None,
    )


def _flux_fill() -> Any:
    from diffusers import FluxFillPipeline

    return FluxFillPipeline(**_without_extras(_flux(channels=16 + 16 + 256)))


def _without_extras(pipe: Any) -> dict[str, Any]:
    return {name: part for name, part in pipe.components.items() if name not in ("image_encoder", "feature_extractor")}


def _flux(*, is_distilled_in_steps: bool = False, channels: int = 16) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=channels,
        out_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=FEATURES,
        pooled_projection_dim=FEATURES,
        axes_dims_rope=(4, 4, 8),
        guidance_embeds=not is_distilled_in_steps,
    )
    scheduler = FlowMatchEulerDiscreteScheduler(
        shift=1.0 if is_distilled_in_steps else 3.0, use_dynamic_shifting=not is_distilled_in_steps
    )
    return FluxPipeline(
        scheduler=scheduler,
        vae=tiny_networks.autoencoder_kl(shift_factor=0.1),
        text_encoder=tiny_networks.text_encoder(),
        tokenizer=tiny_networks.tokenizer(),
        text_encoder_2=tiny_networks.t5_encoder(FEATURES),
        tokenizer_2=tiny_networks.t5_tokenizer(),
        transformer=transformer.eval(),
    )


def _flux_kontext() -> Any:
    from diffusers import FluxKontextPipeline

    return FluxKontextPipeline(**_flux().components)


def _chroma() -> Any:
    from diffusers import ChromaPipeline, ChromaTransformer2DModel, FlowMatchEulerDiscreteScheduler

    transformer = ChromaTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=FEATURES,
        axes_dims_rope=(4, 4, 8),
        approximator_hidden_dim=32,
        approximator_layers=1,
        approximator_num_channels=16,
    )
    return ChromaPipeline(
        transformer=transformer.eval(),
        vae=tiny_networks.autoencoder_kl(shift_factor=0.1),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        tokenizer=tiny_networks.t5_tokenizer(),
        text_encoder=tiny_networks.t5_encoder(FEATURES),
    )


def _pocket_size() -> Any:
    """Random weights in the built-in model's own sizes: for measuring time where that is not there."""
    from diffusers import AutoencoderTiny, UNet2DConditionModel

    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(64, 128, 256),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        attention_head_dim=4,
        norm_num_groups=16,
        cross_attention_dim=FEATURES,
        addition_embed_type="text",
        addition_embed_type_num_heads=4,
        resnet_time_scale_shift="scale_shift",
    )
    vae = AutoencoderTiny(
        latent_channels=4,
        encoder_block_out_channels=(64,) * 5,
        decoder_block_out_channels=(64,) * 5,
        num_encoder_blocks=(0, 0, 1, 2, 2),
        num_decoder_blocks=(3, 3, 2, 1, 0),
    )
    return _stable_diffusion(vae.eval(), unet.eval())


_MAKERS: dict[str, Callable[[], Any]] = {
    "sd": _sd,
    "sd-tiny-vae": _sd_tiny_vae,
    "sd-text-time": _sd_text_time,
    "lcm": _lcm,
    "pixart": _pixart,
    "sdxl": _sdxl,
    "sdxl-plain": lambda: _sdxl(force_zeros_for_empty_prompt=False),
    "sd3": _sd3,
    "sd3-no-t5": lambda: _sd3(has_t5=False),
    "flux": _flux,
    "flux-schnell": lambda: _flux(is_distilled_in_steps=True),
    "flux-kontext": _flux_kontext,
    "flux-fill": _flux_fill,
    "chroma": _chroma,
    "sd-inpainting": _sd_inpainting,
    "sdxl-inpainting": _sdxl_inpainting,
    "sdxl-refiner": _sdxl_refiner,
    "z-image": tiny_flows.z_image,
    "z-image-turbo": lambda: tiny_flows.z_image(is_turbo=True),
    "flux2": tiny_flows.flux2,
    "flux2-distilled": lambda: tiny_flows.flux2(is_distilled=True),
    "flux2-dev": tiny_flows.flux2_dev,
    "qwen-image": tiny_flows.qwen_image,
    "qwen-image-edit": tiny_flows.qwen_image_edit,
    "qwen-image-edit-plus": lambda: tiny_flows.qwen_image_edit(is_plus=True),
    "krea2": tiny_flows.krea2,
    "krea2-distilled": lambda: tiny_flows.krea2(is_distilled=True),
    "pocket-size": _pocket_size,
    # As checkpoints of one file are: their text encoders are told apart by width.
    "sd2": _sd2,
    "sdxl-single": lambda: _sdxl(wide=40),
    "sd3-single": lambda: _sd3(wide=40),
}


def _stable_diffusion(vae: Any, unet: Any) -> Any:
    from diffusers import PNDMScheduler, StableDiffusionPipeline

    scheduler = PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1
    )
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=tiny_networks.text_encoder(),
        tokenizer=tiny_networks.tokenizer(),
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


if __name__ == "__main__":
    make(sys.argv[1], Path(sys.argv[2]))
