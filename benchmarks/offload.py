"""How much of a model is on its device at once, block by block: of its weights' bytes, while it computes a step.

    python -m benchmarks.offload [--only NAME]...

No device is needed: what is on it are copies in the machine's own memory, which are counted whenever weights come, the
next block ahead of its turn as on CUDA. The networks have random weights: a transformer of two thousand million
numbers, and Stable Diffusion XL's UNet. What the journeys cost in time only a device can tell: not measured on a GPU.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import torch
from craft_protos import rungs
from craftd.worker.models.offload import Offloading

from benchmarks import figures
from benchmarks.figures import Figure
from tests.worker.counted import Counted

_SDXL = Path(__file__).parent.parent / "daemon" / "craftd" / "architectures" / "sdxl" / "unet"
_MOST = 0.25


def _transformer() -> tuple[Any, dict[str, Any]]:
    network = diffusers.FluxTransformer2DModel(
        num_layers=12,
        num_single_layers=28,
        attention_head_dim=128,
        num_attention_heads=12,
        joint_attention_dim=1024,
        pooled_projection_dim=256,
        guidance_embeds=False,
    )
    half = {"dtype": torch.bfloat16}
    call = {
        "hidden_states": torch.randn(1, 64, 64, **half),
        "encoder_hidden_states": torch.randn(1, 32, 1024, **half),
        "pooled_projections": torch.randn(1, 256, **half),
        "timestep": torch.tensor([0.5], **half),
        "img_ids": torch.zeros(64, 3, **half),
        "txt_ids": torch.zeros(32, 3, **half),
    }
    return network, call


def _unet() -> tuple[Any, dict[str, Any]]:
    kind: Any = diffusers.UNet2DConditionModel
    half = {"dtype": torch.bfloat16}
    call = {
        "sample": torch.randn(1, 4, 16, 16, **half),
        "timestep": torch.tensor([500.0]),
        "encoder_hidden_states": torch.randn(1, 77, 2048, **half),
        "added_cond_kwargs": {"text_embeds": torch.randn(1, 1280, **half), "time_ids": torch.zeros(1, 6, **half)},
    }
    return kind.from_config(kind.load_config(_SDXL)), call


NETWORKS: dict[str, Callable[[], tuple[Any, dict[str, Any]]]] = {"transformer": _transformer, "unet": _unet}


def measure(name: str) -> Figure:
    """The most bytes that were there at once ÷ the bytes of all its weights."""
    torch.manual_seed(1)
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)  # made so: twice as fast, half the memory
    try:
        network, call = NETWORKS[name]()
    finally:
        torch.set_default_dtype(usual)
    device = Counted([network])
    offloading = Offloading(SimpleNamespace(components={name: network}), name, device)
    offloading.go_to(rungs.BLOCKS)
    with torch.inference_mode():
        for _ in range(2):  # in the second the order of the blocks is known, so that they come ahead
            network(**call, return_dict=False)
    total = offloading.sizes[name].total
    billions = sum(one.numel() for one in network.parameters()) / 1e9
    claim = f"device bytes of a {type(network).__name__} of {billions:.1f} B, by blocks"
    return figures.of_rounds(claim, f"its weights, {total / 1e9:.1f} GB", [device.most_bytes / total], at_most=_MOST)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=NETWORKS)
    return figures.tell([measure(name) for name in parser.parse_args().only or NETWORKS])


if __name__ == "__main__":
    sys.exit(main())
