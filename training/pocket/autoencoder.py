"""Stage 1: the autoencoder, 256x256x3 pictures to 16x16x8 latents and back.

An AutoencoderTiny with five stages (factor 16), trained on random crops: it is
convolutional, so crops teach it as much per pixel as whole pictures. Noise on the
latents while training keeps their scale bounded and teaches the decoder to ignore
the small errors that a diffusion model leaves.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny
from torch import Tensor

from training.pocket import checkpoint
from training.pocket.concepts import random_scene
from training.pocket.muon import Muon, split_parameters
from training.pocket.precision import fast
from training.pocket.render import SIDE, render

LATENT_CHANNELS = 8


@dataclass(frozen=True)
class AutoencoderRecipe:
    """How long and on what."""

    steps: int = 1700
    pictures: int = 3000
    batch: int = 24
    crop: int = 96
    learning_rate: float = 6e-3
    latent_noise: float = 0.25
    latent_penalty: float = 2e-3
    seed: int = 7


def build() -> AutoencoderTiny:
    """The untrained autoencoder."""
    width = 32
    return AutoencoderTiny(
        latent_channels=LATENT_CHANNELS,
        encoder_block_out_channels=(width,) * 5,
        decoder_block_out_channels=(width,) * 5,
        num_encoder_blocks=(0, 0, 1, 2, 2),
        num_decoder_blocks=(6, 6, 4, 2, 0),
        scaling_factor=1.0,
    )


def train(folder: Path, recipe: AutoencoderRecipe, device: torch.device) -> AutoencoderTiny:
    """Train (or go on training) the autoencoder and keep it in `folder`/autoencoder.pt."""
    torch.manual_seed(recipe.seed)
    vae = build().to(device, memory_format=torch.channels_last)
    optimizer = Muon(*split_parameters(vae), lr=recipe.learning_rate, others_ratio=0.05)
    state = checkpoint.resume(folder / "autoencoder.pt", vae=vae, optimizer=optimizer)
    rng = random.Random(recipe.seed + state.step)
    pictures = render_pictures(recipe.pictures, rng)
    autosave = checkpoint.Autosave()
    started, before = time.monotonic(), state.seconds
    while state.step < recipe.steps:
        share = state.step / recipe.steps
        _set_rate(optimizer, recipe.learning_rate, share, state.step)
        target = _crops(pictures, recipe, rng).to(device, memory_format=torch.channels_last)
        noise = recipe.latent_noise * min(1.0, max(0.0, share - 0.1) / 0.4)
        loss, sharpness = _loss(vae, target, noise, recipe.latent_penalty)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        state.step += 1
        state.seconds = before + time.monotonic() - started
        if state.step % 100 == 0:
            print(
                f"autoencoder step {state.step}/{recipe.steps}  {state.seconds:.0f} s"
                f"  loss {loss.item():.4f}  L1 {sharpness:.4f}",
                flush=True,
            )
        if autosave.is_due():
            checkpoint.save(folder / "autoencoder.pt", state, vae=vae, optimizer=optimizer)
    checkpoint.save(folder / "autoencoder.pt", state, vae=vae, optimizer=optimizer)
    return vae.eval()


def render_pictures(count: int, rng: random.Random) -> Tensor:
    """`count` random scenes, uint8 (count, 3, 256, 256)."""
    pictures = torch.empty(count, 3, SIDE, SIDE, dtype=torch.uint8)
    for i in range(count):
        pictures[i] = torch.from_numpy(render(random_scene(rng, pair_share=0.3), rng)).permute(2, 0, 1)
    return pictures


def _set_rate(optimizer: torch.optim.Optimizer, peak: float, share: float, step: int) -> None:
    warm = min(1.0, (step + 1) / 50)
    cooled = max(0.01, min(1.0, (1 - share) / 0.8))
    for group in optimizer.param_groups:
        group["lr"] = peak * warm * cooled


def _crops(pictures: Tensor, recipe: AutoencoderRecipe, rng: random.Random) -> Tensor:
    """Crops in [-1, 1] (batch, 3, crop, crop); of two candidates the busier one, since most pixels are plain."""
    chosen = []
    for _ in range(recipe.batch):
        tries = [_crop(pictures[rng.randrange(len(pictures))], recipe.crop, rng) for _ in range(2)]
        chosen.append(max(tries, key=_busyness))
    return torch.stack(chosen).float() / 127.5 - 1


def _crop(picture: Tensor, side: int, rng: random.Random) -> Tensor:
    y, x = (rng.randrange(0, SIDE - side + 1, 8) for _ in range(2))
    return picture[:, y : y + side, x : x + side]


def _busyness(crop: Tensor) -> float:
    thin = crop[:, ::6, ::6].float()
    return float((thin[:, 1:] - thin[:, :-1]).abs().mean() + (thin[:, :, 1:] - thin[:, :, :-1]).abs().mean())


def pixel_loss(drawn: Tensor, target: Tensor) -> Tensor:
    """Absolute differences of the pixels, of their neighbours' differences (contours) and of coarser pictures."""
    edges = sum((F.l1_loss(drawn.diff(dim=axis), target.diff(dim=axis)) for axis in (2, 3)), torch.zeros(()))
    coarse = sum((F.l1_loss(F.avg_pool2d(drawn, k), F.avg_pool2d(target, k)) for k in (4, 16)), torch.zeros(()))
    return F.l1_loss(drawn, target) + edges + 0.5 * coarse


def _loss(vae: AutoencoderTiny, target: Tensor, noise: float, penalty: float) -> tuple[Tensor, float]:
    with fast(target.device):
        latents = vae.encoder(target)
        scale = noise * torch.rand(len(latents), 1, 1, 1, device=latents.device)
        drawn = vae.decoder(latents + scale * torch.randn_like(latents))
    loss = pixel_loss(drawn.float(), target) + penalty * latents.float().square().mean()
    return loss, F.l1_loss(drawn.float(), target).item()
