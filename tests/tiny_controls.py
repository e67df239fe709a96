"""Random ControlNets for tiny models, and their tensors in the original layout."""

from __future__ import annotations

from typing import Any

_SILENT = ("controlnet_", "input_hint_block", "pos_embed_input", "control_")  # what begins as noughts


def of(unet: Any, seed: int = 1) -> Any:
    """A copy of the UNet's way down that says something: what begins as noughts is random."""
    from diffusers import ControlNetModel

    return speaking(ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(8, 8, 16, 16)), seed)


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
    return speaking(control, seed)


def adapter(unet: Any, seed: int = 1, *, channels: int = 3, kind: str = "") -> Any:
    """A T2I-adapter for a UNet of that many levels, or for none; `kind`: diffusers', the UNet's where it is unsaid."""
    import torch
    from diffusers import T2IAdapter

    is_xl = unet.config.addition_embed_type == "text_time"
    widths = list(unet.config.block_out_channels)
    torch.manual_seed(seed)
    made = T2IAdapter(
        in_channels=channels,
        channels=widths,
        downscale_factor=16 if is_xl else 8,
        adapter_type=kind or ("full_adapter_xl" if is_xl else "full_adapter"),
    )
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(3)
    return made.eval()


def of_transformer(kind: Any, transformer: Any, seed: int = 1, **config: Any) -> Any:
    """diffusers' class of ControlNets for a transformer, as that one is made but for its blocks."""
    import torch

    torch.manual_seed(seed)
    own = {name: one for name, one in transformer.config.items() if not name.startswith("_")}
    return speaking(kind.from_config(own | config), seed)


def speaking(control: Any, seed: int) -> Any:
    import torch

    generator = torch.Generator("cpu").manual_seed(seed)
    with torch.no_grad():
        for name, parameter in control.named_parameters():
            if name.startswith(_SILENT):
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return control.eval()
