"""pocket's networks and schedule, untrained: the parts of a StableDiffusionPipeline."""

from __future__ import annotations

from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from training.pocket.autoencoder import LATENT_CHANNELS
from training.pocket.tokenizer import MAX_LENGTH

LATENT_SIDE = 16
TEXT_WIDTH = 256

SCHEDULE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "steps_offset": 1,
}


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Three layers of CLIP's text transformer, 256 wide: letters and words, names, and who comes where."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_WIDTH,
        intermediate_size=2 * TEXT_WIDTH,
        projection_dim=TEXT_WIDTH,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=MAX_LENGTH,
        hidden_act="gelu",
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


def build_unet() -> UNet2DConditionModel:
    """The denoiser. The text reaches it twice: pooled, through the timestep embedding of every
    block (`addition_embed_type="text"`), which is what lets so small a net tell five hundred things
    apart; and by cross-attention, at 4x4 and on the way up at 8x8, which sends the one of two
    things to the left and the other to the right. The embedding is wider than diffusers' default,
    about as wide as there are things: it costs next to nothing, and each thing can then have
    channel scales of its own."""
    return UNet2DConditionModel(
        sample_size=LATENT_SIDE,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=(96, 192, 192),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=8,  # heads, in spite of the name
        norm_num_groups=16,
        cross_attention_dim=TEXT_WIDTH,
        time_embedding_dim=512,
        addition_embed_type="text",
        addition_embed_type_num_heads=4,
        resnet_time_scale_shift="scale_shift",
    )


def training_schedule() -> DDIMScheduler:
    """The noise schedule that training draws its timesteps from."""
    return DDIMScheduler(**SCHEDULE, clip_sample=False, set_alpha_to_one=False)


def default_sampler() -> DPMSolverMultistepScheduler:
    """The scheduler that the shipped folder names, with what DDIM and DDPM must know: latents exceed 1."""
    others = {"clip_sample": False, "set_alpha_to_one": False}
    return DPMSolverMultistepScheduler.from_config({**SCHEDULE, "timestep_spacing": "trailing", **others})
