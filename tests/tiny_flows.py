"""Tiny random pipelines of the newer flow-matching transformers, whose words a language model reads."""

from __future__ import annotations

from typing import Any

from tests import tiny_networks
from tests.tiny_networks import FEATURES

TEXT: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": FEATURES,
    "intermediate_size": 64,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 16,
}
_MARKS = ("<|image_pad|>", "<|vision_start|>", "<|vision_end|>")
PROCESSOR = {"image_processor_type": "Qwen2VLImageProcessor", "min_pixels": 3136, "max_pixels": 12_845_056}
_MULTIMODAL_ROPE = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [2, 3, 3]}
# As Qwen's templates do with a conversation of one message; a prompt stands in a frame.
_TEMPLATE = (
    "{%- for message in messages %}<{{ message.role }}>\n"
    "{% if message.content is string %}{{ message.content }}"
    "{% else %}{% for part in message.content %}{{ part.text }}{% endfor %}{% endif %}</>\n{%- endfor %}"
    "{%- if add_generation_prompt %}<assistant>{% if enable_thinking is defined and not enable_thinking %}--{% endif %}"
    "{%- endif %}"
)


def tokenizer() -> Any:
    made = tiny_networks.t5_tokenizer()
    made.chat_template = _TEMPLATE
    return made


def z_image(*, is_turbo: bool = False) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, ZImagePipeline, ZImageTransformer2DModel

    transformer = ZImageTransformer2DModel(
        in_channels=4,
        dim=32,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=FEATURES,
        axes_dims=[8, 4, 4],
        axes_lens=[1024, 32, 32],
    )
    return ZImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0 if is_turbo else 6.0),
        vae=tiny_networks.autoencoder_kl(shift_factor=0.1),
        text_encoder=qwen3(layers=2),
        tokenizer=tokenizer(),
        transformer=_lively(transformer, gain=1),
    )


def flux2(
    *, is_distilled: bool = False, layers: int = 1, text_width: int = FEATURES, text_layers: int = 27, latents: int = 4
) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, Flux2KleinPipeline, Flux2Transformer2DModel

    transformer = Flux2Transformer2DModel(
        patch_size=1,
        in_channels=4 * latents,
        num_layers=layers,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=3 * text_width,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=False,
    )
    return Flux2KleinPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=autoencoder_in_patches(latents),
        text_encoder=qwen3(layers=text_layers, is_causal_lm=True, hidden_size=text_width),
        tokenizer=tokenizer(),
        transformer=_lively(transformer, gain=2),
        is_distilled=is_distilled,
    )


def flux2_dev() -> Any:
    """Its tokenizer stands where the published one's processor does, whose name is written into the index."""
    from diffusers import Flux2Pipeline, Flux2Transformer2DModel

    transformer = Flux2Transformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=3 * FEATURES,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=True,
    )
    parts = flux2().components | {"text_encoder": _mistral3(layers=30), "transformer": _lively(transformer, gain=2)}
    return Flux2Pipeline(**parts)


def qwen_image() -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, QwenImagePipeline, QwenImageTransformer2DModel

    transformer = QwenImageTransformer2DModel(
        patch_size=2,
        in_channels=16,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=FEATURES,
        axes_dims_rope=(8, 4, 4),
    )
    scheduler = FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True, base_shift=0.5, max_shift=0.9, max_image_seq_len=8192, shift_terminal=0.02
    )
    return QwenImagePipeline(
        scheduler=scheduler,
        vae=autoencoder_of_videos(),
        text_encoder=qwen25_vl(),
        tokenizer=tokenizer(),
        transformer=_lively(transformer, gain=4),
    )


def qwen_image_edit(*, is_plus: bool = False) -> Any:
    """Its processor is written beside it: transformers' own cannot be made here."""
    from diffusers import QwenImageEditPipeline, QwenImageEditPlusPipeline

    parts = qwen_image().components
    parts["tokenizer"].add_special_tokens({"additional_special_tokens": list(_MARKS)})
    config, ids = parts["text_encoder"].config, parts["tokenizer"].convert_tokens_to_ids(list(_MARKS))
    for name, token in zip(("image_token_id", "vision_start_token_id", "vision_end_token_id"), ids, strict=True):
        setattr(config, name, token)
    made: Any = (QwenImageEditPlusPipeline if is_plus else QwenImageEditPipeline)(**parts, processor=None)
    return made


def krea2(*, is_distilled: bool = False) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, Krea2Pipeline, Krea2Transformer2DModel

    transformer = Krea2Transformer2DModel(
        in_channels=16,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=48,
        timestep_embed_dim=16,
        text_hidden_dim=FEATURES,
        num_text_layers=2,
        text_num_attention_heads=2,
        text_num_key_value_heads=2,
        text_intermediate_size=48,
        num_layerwise_text_blocks=1,
        num_refiner_text_blocks=1,
        axes_dims_rope=(8, 4, 4),
    )
    return Krea2Pipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, max_image_seq_len=6400),
        vae=autoencoder_of_videos(),
        text_encoder=qwen3_vl(),
        tokenizer=tokenizer(),
        transformer=_lively(transformer, gain=6),
        text_encoder_select_layers=(1, 2),
        is_distilled=is_distilled,
    )


def _lively(transformer: Any, gain: float) -> Any:
    """Listens to the words: a new one hardly does. What is noughts when it is made would hide what is done with it."""
    import torch

    with torch.no_grad():
        for name, parameter in transformer.named_parameters():
            if name.endswith(("scale_shift_table", "pad_token")):
                parameter.normal_(std=0.5)
            elif parameter.ndim == 2 and "time" not in name:
                parameter.mul_(gain)
    return transformer.eval()


def _mistral3(layers: int) -> Any:
    from transformers import Mistral3Config, Mistral3ForConditionalGeneration

    text = {**TEXT, "num_hidden_layers": layers, "model_type": "mistral"}
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision |= {"model_type": "pixtral", "head_dim": 8}
    return Mistral3ForConditionalGeneration(Mistral3Config(text_config=text, vision_config=vision)).eval()


def qwen3(layers: int, *, is_causal_lm: bool = False, hidden_size: int = FEATURES) -> Any:
    from transformers import Qwen3Config, Qwen3ForCausalLM, Qwen3Model

    config = Qwen3Config(**{**TEXT, "hidden_size": hidden_size}, num_hidden_layers=layers)
    return (Qwen3ForCausalLM if is_causal_lm else Qwen3Model)(config).eval()


def qwen25_vl() -> Any:
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    text = {**TEXT, "num_hidden_layers": 2, "rope_parameters": _MULTIMODAL_ROPE}
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": FEATURES}
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision)
    return Qwen2_5_VLForConditionalGeneration(config).eval()


def qwen3_vl(layers: int = 2, *, is_causal_lm: bool = False) -> Any:
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration, Qwen3VLModel

    text = {**TEXT, "num_hidden_layers": layers, "rope_parameters": _MULTIMODAL_ROPE}
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": FEATURES}
    vision |= {"deepstack_visual_indexes": [0], "num_position_embeddings": 16}
    kind: Any = Qwen3VLForConditionalGeneration if is_causal_lm else Qwen3VLModel
    return kind(Qwen3VLConfig(text_config=text, vision_config=vision)).eval()


def autoencoder_in_patches(latents: int = 4) -> Any:
    """With statistics that are none of a new one's."""
    import torch
    from diffusers import AutoencoderKLFlux2

    vae = AutoencoderKLFlux2(
        block_out_channels=(8, 8, 8, 16),
        latent_channels=latents,
        norm_num_groups=4,
        sample_size=64,
    )
    torch.nn.init.normal_(vae.bn.running_mean, std=0.3)
    torch.nn.init.uniform_(vae.bn.running_var, 0.5, 2.0)
    return vae.eval()


def autoencoder_of_videos() -> Any:
    from diffusers import AutoencoderKLQwenImage

    return AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 1, 1, 2],
        num_res_blocks=1,
        latents_mean=[-0.8, 0.1, 0.4, -0.3],
        latents_std=[2.8, 1.4, 2.3, 1.1],
    ).eval()
