"""Random ControlNets for tiny models, and their tensors in the original layout."""

from __future__ import annotations

from typing import Any


def of(unet: Any, seed: int = 1) -> Any:
    """A copy of the UNet's way down that says something: what begins as noughts is random."""
    from diffusers import ControlNetModel

    return _speaking(ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(8, 8, 16, 16)), seed)


def small(text_width: int, *, is_xl: bool = False, seed: int = 3) -> Any:
    """One as the checkpoints of an architecture are made, but for its narrow blocks."""
    import torch
    from diffusers import ControlNetModel

    more: dict[str, Any] = {"attention_head_dim": 8} if text_width == 768 else {"attention_head_dim": [1, 2]}
    if is_xl:
        more |= {"addition_embed_type": "text_time", "addition_time_embed_dim": 256}
        more |= {"projection_class_embeddings_input_dim": 2816, "transformer_layers_per_block": [1, 2]}
    torch.manual_seed(seed)
    control = ControlNetModel(
        block_out_channels=(64, 128),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D") if is_xl else ("CrossAttnDownBlock2D", "DownBlock2D"),
        cross_attention_dim=text_width,
        use_linear_projection=text_width > 768,
        conditioning_embedding_out_channels=(8, 8, 16, 16),
        **more,
    )
    return _speaking(control, seed)


def _speaking(control: Any, seed: int) -> Any:
    import torch

    generator = torch.Generator("cpu").manual_seed(seed)
    with torch.no_grad():
        for name, parameter in control.named_parameters():
            if name.startswith(("controlnet_down_blocks", "controlnet_mid_block", "controlnet_cond_embedding")):
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return control.eval()
