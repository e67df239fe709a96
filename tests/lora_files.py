"""LoRA files with random weights, written by hand: neither torch nor a library is asked."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Mapping
from pathlib import Path

import craftd

from tests.raw_safetensors import safetensors

_POCKETS_TEXT = Path(craftd.__file__).parent / "pocket" / "text_encoder" / "config.json"
POCKETS_WIDTH = int(json.loads(_POCKETS_TEXT.read_text(encoding="utf-8"))["hidden_size"])
ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "I64": 8}
Tensors = Mapping[str, tuple[str, tuple[int, ...], bytes]]  # name -> dtype, shape, bytes


def write(path: Path, tensors: Tensors, metadata: Mapping[str, str] | None = None) -> Path:
    """A safetensors file."""
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    reached = 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [reached, reached + len(data)]}
        reached += len(data)
    path.write_bytes(safetensors(header, b"".join(data for _, _, data in tensors.values())))
    return path


def layer(
    name: str, *, width: int = POCKETS_WIDTH, out: int = 64, rank: int = 4, kernel: int = 0, seed: int = 0
) -> Tensors:
    """One adapted layer in kohya's form."""
    sides = (kernel, kernel) if kernel else ()
    return {
        f"{name}.lora_down.weight": ("F32", (rank, width, *sides), numbers(rank * width * max(1, kernel) ** 2, seed)),
        f"{name}.lora_up.weight": ("F32", (out, rank, *(1 for _ in sides)), numbers(out * rank, seed + 1)),
        f"{name}.alpha": ("F32", (), struct.pack("<f", rank / 2)),
    }


def kohya(
    path: Path, *, width: int = POCKETS_WIDTH, rank: int = 4, seed: int = 0, metadata: Mapping[str, str] | None = None
) -> Path:
    """A LoRA for a UNet whose text is `width` wide (as pocket's; 768: Stable Diffusion 1's, ...)."""
    name = "lora_unet_down_blocks_2_attentions_0_transformer_blocks_0_attn2_to_k"
    return write(path, layer(name, width=width, rank=rank, seed=seed), metadata)


def numbers(count: int, seed: int = 0) -> bytes:
    made = random.Random(seed)
    return struct.pack(f"<{count}f", *(made.gauss(0, 0.1) for _ in range(count)))


def with_bits(dtype: str, bits: int, count: int = 3) -> tuple[str, tuple[int, ...], bytes]:
    """A tensor of zeros whose last number has these bits."""
    size = ITEM_BYTES[dtype]
    return dtype, (count,), bytes(size * (count - 1)) + bits.to_bytes(size, "little")
