"""Tiny random models in diffusers' format: real architectures, a few thousand weights, made in seconds.

make(kind, folder)      one model; kinds: those of KINDS
cached(kind)            the same, made once for each machine and version of this file
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

KINDS = (
    *("sd", "sd-tiny-vae", "sd-text-time", "lcm", "pixart"),
    *("sdxl", "sdxl-plain", "sd3", "sd3-no-t5", "flux", "flux-schnell"),
)

_MERGES = [("a", "n"), ("c", "a"), ("ca", "t</w>"), ("d", "o"), ("do", "g</w>"), ("r", "e"), ("re", "d</w>")]
_FEATURES = 32


def cached(kind: str) -> Path:
    """The folder of a tiny model, made if it isn't there. Safe where several processes ask at once."""
    digest = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]
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
    return {"text_encoder_3": None, "tokenizer_3": None} if kind == "sd3-no-t5" else {}


def make(kind: str, folder: Path) -> None:
    """Write a model of `kind` to `folder`. The same weights each time."""
    import torch

    torch.manual_seed(20)
    _MAKERS[kind]().save_pretrained(folder, safe_serialization=True)


def _sd() -> Any:
    return _stable_diffusion(_autoencoder_kl(), _unet())


def _sd_tiny_vae() -> Any:
    return _stable_diffusion(_autoencoder_tiny(), _unet())


def _sd_text_time() -> Any:
    """As the built-in model is: the text acts through the time embedding too."""
    unet = _unet(addition_embed_type="text", addition_embed_type_num_heads=4, encoder_hid_dim=None)
    return _stable_diffusion(_autoencoder_tiny(), unet)


def _lcm() -> Any:
    from diffusers import LatentConsistencyModelPipeline, LCMScheduler

    return LatentConsistencyModelPipeline(
        vae=_autoencoder_kl(),
        text_encoder=_text_encoder(),
        tokenizer=_tokenizer(),
        unet=_unet(time_cond_proj_dim=16),
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
        caption_channels=_FEATURES,
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
        tokenizer=_t5_tokenizer(),
        text_encoder=_t5_encoder(_FEATURES),
        vae=_autoencoder_kl(),
        transformer=transformer.eval(),
        scheduler=DPMSolverMultistepScheduler(),
    )


def _sdxl(wide: int = _FEATURES, **more: Any) -> Any:
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline

    unet = _unet(
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + wide,
        cross_attention_dim=_FEATURES + wide,
    )
    return StableDiffusionXLPipeline(
        vae=_autoencoder_kl(),
        text_encoder=_text_encoder(),
        text_encoder_2=_text_encoder_with_projection(wide),
        tokenizer=_tokenizer(),
        tokenizer_2=_tokenizer(pad_token="!"),
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
        vae=_autoencoder_kl(),
        text_encoder=CLIPTextModel(_clip_config(hidden_act="gelu")).eval(),
        tokenizer=_tokenizer(pad_token="!"),
        unet=_unet(use_linear_projection=True),
        scheduler=DDIMScheduler(prediction_type="v_prediction", clip_sample=False, set_alpha_to_one=False, **config),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _sd3(*, has_t5: bool = True, wide: int = _FEATURES) -> Any:
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
        joint_attention_dim=3 * _FEATURES,
        caption_projection_dim=32,
        pooled_projection_dim=_FEATURES + wide,
        pos_embed_max_size=24,
    )
    text_encoder = _text_encoder_with_projection()
    if wide != _FEATURES:
        torch.nn.init.eye_(text_encoder.text_projection.weight)  # checkpoints have none
    return StableDiffusion3Pipeline(
        transformer=transformer.eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=_autoencoder_kl(shift_factor=0.06),
        text_encoder=text_encoder,
        tokenizer=_tokenizer(),
        text_encoder_2=_text_encoder_with_projection(wide),
        tokenizer_2=_tokenizer(pad_token="!"),
        text_encoder_3=_t5_encoder(3 * _FEATURES) if has_t5 else None,
        tokenizer_3=_t5_tokenizer() if has_t5 else None,
    )


def _flux(*, is_distilled_in_steps: bool = False) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=_FEATURES,
        pooled_projection_dim=_FEATURES,
        axes_dims_rope=(4, 4, 8),
        guidance_embeds=not is_distilled_in_steps,
    )
    scheduler = FlowMatchEulerDiscreteScheduler(
        shift=1.0 if is_distilled_in_steps else 3.0, use_dynamic_shifting=not is_distilled_in_steps
    )
    return FluxPipeline(
        scheduler=scheduler,
        vae=_autoencoder_kl(shift_factor=0.1),
        text_encoder=_text_encoder(),
        tokenizer=_tokenizer(),
        text_encoder_2=_t5_encoder(_FEATURES),
        tokenizer_2=_t5_tokenizer(),
        transformer=transformer.eval(),
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
        cross_attention_dim=_FEATURES,
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
        text_encoder=_text_encoder(),
        tokenizer=_tokenizer(),
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _unet(**more: Any) -> Any:
    from diffusers import UNet2DConditionModel

    config: dict[str, Any] = {"cross_attention_dim": _FEATURES} | more
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=4,
        norm_num_groups=8,
        **config,
    )
    return unet.eval()


def _autoencoder_kl(**more: Any) -> Any:
    from diffusers import AutoencoderKL

    vae = AutoencoderKL(
        block_out_channels=(8, 8, 8, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=64,
        **more,
    )
    return vae.eval()


def _autoencoder_tiny() -> Any:
    from diffusers import AutoencoderTiny

    vae = AutoencoderTiny(
        encoder_block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        num_encoder_blocks=(1, 1, 1, 1),
        num_decoder_blocks=(1, 1, 1, 1),
        latent_channels=4,
    )
    vae.decoder.layers[-1].weight.data *= 4  # else everything is nearly black
    vae.decoder.layers[-1].bias.data += 0.5
    return vae.eval()


def _text_encoder() -> Any:
    from transformers import CLIPTextModel

    return CLIPTextModel(_clip_config()).eval()


def _text_encoder_with_projection(features: int = _FEATURES) -> Any:
    from transformers import CLIPTextModelWithProjection

    return CLIPTextModelWithProjection(_clip_config(projection_dim=features, hidden_size=features)).eval()


def _t5_encoder(features: int) -> Any:
    from transformers import T5Config, T5EncoderModel

    config = T5Config(vocab_size=300, d_model=features, d_kv=8, d_ff=37, num_layers=2, num_heads=4)
    return T5EncoderModel(config).eval()


def _clip_config(**more: Any) -> Any:
    from transformers import CLIPTextConfig

    tokenizer = _tokenizer()
    config: dict[str, Any] = {"hidden_size": _FEATURES} | more
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        intermediate_size=37,
        num_attention_heads=4,
        num_hidden_layers=2,
        max_position_embeddings=77,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **config,
    )


def _tokenizer(**more: Any) -> Any:
    """CLIP's byte-pair encoding with a vocabulary of letters and a few words."""
    from transformers import CLIPTokenizer

    characters = [chr(code) for code in range(33, 127)]
    words = ["<|startoftext|>", "<|endoftext|>"]
    tokens = [*characters, *(f"{character}</w>" for character in characters), *("".join(pair) for pair in _MERGES)]
    with tempfile.TemporaryDirectory() as folder:
        vocabulary = {token: i for i, token in enumerate([*tokens, *words])}
        (Path(folder) / "vocab.json").write_text(json.dumps(vocabulary))
        (Path(folder) / "merges.txt").write_text(
            "#version: 0.2\n" + "".join(f"{left} {right}\n" for left, right in _MERGES)
        )
        return CLIPTokenizer.from_pretrained(folder, model_max_length=77, **more)


def _t5_tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {"<pad>": 0, "</s>": 1, "<unk>": 2} | {chr(code): code - 29 for code in range(32, 127)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=120
    )


if __name__ == "__main__":
    make(sys.argv[1], Path(sys.argv[2]))
