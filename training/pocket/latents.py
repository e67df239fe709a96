"""Stage 2: views of random scenes, encoded once and kept as shards.

A shard is one file of latents, captions and their scene kinds, decided by its number
alone, so that shards can be made in any order, by several processes, and made again.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderTiny
from torch import Tensor

from training.pocket.concepts import PAIR_SHARE, caption, random_scene
from training.pocket.render import render_on_grid

SHARD_VIEWS = 2000
_CAPTIONS_A_VIEW = 3


@dataclass(frozen=True)
class Views:
    """Latents (n, 8, 16, 16) in half precision, unscaled, and each one's captions."""

    latents: Tensor
    captions: list[list[str]]


def make_shards(folder: Path, vae: AutoencoderTiny, numbers: range, seed: int, device: torch.device) -> None:
    """Make those of the shards `numbers` that are not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        path = shard_path(folder, number)
        if path.exists():
            continue
        views = _make_shard(vae, seed * 100_000 + number, device)
        beside = path.with_suffix(f".{os.getpid()}.tmp")
        torch.save({"latents": views.latents, "captions": views.captions}, beside)
        beside.replace(path)
        print(f"latents shard {number} of {numbers}", flush=True)


def shard_path(folder: Path, number: int) -> Path:
    """Where shard `number` lies."""
    return folder / f"shard-{number:04}.pt"


def load_shards(folder: Path) -> Views:
    """Every shard that has been made so far."""
    shards = [torch.load(path, weights_only=True) for path in sorted(folder.glob("shard-*.pt"))]
    return Views(torch.cat([s["latents"] for s in shards]), [c for s in shards for c in s["captions"]])


def load_shard(folder: Path, number: int) -> Views:
    """One shard."""
    shard = torch.load(shard_path(folder, number), weights_only=True)
    return Views(shard["latents"], shard["captions"])


@torch.inference_mode()
def _make_shard(vae: AutoencoderTiny, seed: int, device: torch.device) -> Views:
    rng = random.Random(seed)
    latents, captions = [], []
    for _ in range(SHARD_VIEWS // 16):
        scenes = [random_scene(rng, pair_share=PAIR_SHARE) for _ in range(16)]
        pixels = torch.stack([torch.from_numpy(render_on_grid(scene, rng)).permute(2, 0, 1) for scene in scenes])
        batch = pixels.to(device, torch.float32, memory_format=torch.channels_last) / 127.5 - 1
        latents.append(vae.encoder(batch).half().contiguous().cpu())
        captions += [[caption(scene, rng) for _ in range(_CAPTIONS_A_VIEW)] for scene in scenes]
    return Views(torch.cat(latents), captions)
