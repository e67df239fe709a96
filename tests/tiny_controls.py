"""Random ControlNets for tiny models, and their tensors in the original layout."""

from __future__ import annotations

from typing import Any


def of(unet: Any, seed: int = 1) -> Any:
    """A copy of the UNet's way down that says something: what begins as noughts is random."""
    import torch
    from diffusers import ControlNetModel

    control: Any = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(8, 8, 16, 16))
    generator = torch.Generator("cpu").manual_seed(seed)
    with torch.no_grad():
        for name, parameter in control.named_parameters():
            if name.startswith(("controlnet_down_blocks", "controlnet_mid_block", "controlnet_cond_embedding")):
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return control.eval()
