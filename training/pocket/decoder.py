"""Stage 6: the decoder learns to draw crisply what the denoiser leaves.

What a denoiser draws is a little off: contours waver, details are half decided. The decoder, which so
far has seen encoded pictures with noise on them, now sees the denoiser's own guesses at pictures
(guided, from many noise levels) along with the pictures, and learns to draw those. The encoder
and the denoiser stay as they are, so the latents mean what they meant.

Beside the pixels and their differences, a discriminator of patches judges (Isola et al., 2017): it
sees no captions and names nothing, so it teaches what contours and flat colours look like; the
distance between its features for both pictures is the perceptual loss (Wang et al., 2018).
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny, UNet2DConditionModel
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import CLIPTextModel, CLIPTokenizer

from training.pocket import checkpoint
from training.pocket.autoencoder import pixel_loss
from training.pocket.concepts import caption, random_scene
from training.pocket.model import LATENT_SIDE, training_schedule
from training.pocket.muon import Muon, split_parameters
from training.pocket.precision import fast
from training.pocket.render import SIDE, render_on_grid

_FACTOR = SIDE // LATENT_SIDE


@dataclass(frozen=True)
class DecoderRecipe:
    """How long and on what."""

    steps: int = 2000
    pictures: int = 12
    crop: int = 8  # latents a side: what is decoded of each picture
    pair_share: float = 0.3
    learning_rate: float = 2e-3
    clean_share: float = 0.25  # encoded pictures, so that those do not get worse
    noisiest: float = 0.75  # of the schedule; above, a guess says nothing of contours
    guidance: float = 2.0
    adversarial: float = 0.03
    features: float = 0.3
    warm: int = 100  # steps in which the discriminator only learns
    average: float = 0.99
    seed: int = 11


@dataclass(frozen=True)
class Drawer:
    """What turns captions and noisy latents into guesses."""

    unet: UNet2DConditionModel
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    scale: float


class Discriminator(nn.Module):
    """Pictures to a score for each patch of them, and the features on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(narrow, wide, 4, 2, 1) for narrow, wide in pairwise((3, 32, 64, 96)))
        self.score = nn.Conv2d(96, 1, 3, 1, 1)

    def forward(self, pictures: Tensor) -> tuple[Tensor, list[Tensor]]:
        features = [pictures]
        for layer in self.layers:
            features.append(F.leaky_relu(layer(features[-1]), 0.2))
        return self.score(features[-1]), features[1:]


def train(
    folder: Path, vae: AutoencoderTiny, drawer: Drawer, recipe: DecoderRecipe, device: torch.device
) -> AutoencoderTiny:
    """Train (or go on training) the decoder of `vae`, keep `folder`/decoder.pt; the average comes back."""
    torch.manual_seed(recipe.seed)
    vae.to(device, memory_format=torch.channels_last).requires_grad_(False)
    decoder: nn.Module = vae.decoder.requires_grad_(True)
    critic = Discriminator().to(device, memory_format=torch.channels_last)
    average = AveragedModel(decoder, multi_avg_fn=get_ema_multi_avg_fn(recipe.average))
    optimizer = Muon(*split_parameters(decoder), lr=recipe.learning_rate, others_ratio=0.1)
    critic_optimizer = torch.optim.Adam(critic.parameters(), lr=5e-4, betas=(0.5, 0.95))
    parts: dict[str, checkpoint.Stateful] = {
        "decoder": decoder,
        "critic": critic,
        "average": average,
        "optimizer": optimizer,
        "critic_optimizer": critic_optimizer,
    }
    path = folder / "decoder.pt"
    state = checkpoint.resume(path, **parts)
    torch.manual_seed(recipe.seed + state.step)
    rng = random.Random(recipe.seed + state.step)
    autosave = checkpoint.Autosave()
    started, before = time.monotonic(), state.seconds
    while state.step < recipe.steps:
        _set_rate(optimizer, recipe, state.step)
        target, latents = _cropped(*_views(vae, drawer, recipe, rng, device), recipe.crop, rng)
        with fast(device):
            drawn = decoder(latents)
        drawn = drawn.float()
        critic_loss = _teach(critic, critic_optimizer, drawn.detach(), target, device)
        loss = pixel_loss(drawn, target)
        if state.step >= recipe.warm:
            loss = loss + _judged(critic, drawn, target, recipe, device)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
        optimizer.step()
        average.update_parameters(decoder)
        state.step += 1
        state.seconds = before + time.monotonic() - started
        if state.step % 20 == 0:
            print(
                f"decoder step {state.step}/{recipe.steps}  {state.seconds:.0f} s  loss {loss.item():.4f}"
                f"  L1 {F.l1_loss(drawn, target).item():.4f}  critic {critic_loss:.3f}",
                flush=True,
            )
        if autosave.is_due():
            checkpoint.save(path, state, **parts)
    checkpoint.save(path, state, **parts)
    return with_decoder(folder, vae)


def with_decoder(folder: Path, vae: AutoencoderTiny) -> AutoencoderTiny:
    """The autoencoder with the averaged decoder that `folder`/decoder.pt holds, where there is one."""
    average = AveragedModel(vae.decoder)
    checkpoint.resume(folder / "decoder.pt", average=average)
    vae.decoder.load_state_dict(average.module.state_dict())
    return vae.eval()


def _set_rate(optimizer: torch.optim.Optimizer, recipe: DecoderRecipe, step: int) -> None:
    warm = min(1.0, (step + 1) / 50)
    cooled = max(0.02, min(1.0, (1 - step / recipe.steps) / 0.5))
    for group in optimizer.param_groups:
        group["lr"] = recipe.learning_rate * warm * cooled


@torch.no_grad()
def _views(
    vae: AutoencoderTiny, drawer: Drawer, recipe: DecoderRecipe, rng: random.Random, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Pictures (n, 3, 256, 256) in [-1, 1] and latents to draw them from, as the decoder takes them."""
    scenes = [random_scene(rng, pair_share=recipe.pair_share) for _ in range(recipe.pictures)]
    pixels = torch.stack([torch.from_numpy(render_on_grid(scene, rng)).permute(2, 0, 1) for scene in scenes])
    pictures = pixels.to(device, torch.float32, memory_format=torch.channels_last) / 127.5 - 1
    with fast(device):
        clean = vae.encoder(pictures).float()
        guesses = _guesses(drawer, clean * drawer.scale, [caption(scene, rng) for scene in scenes], recipe)
    is_clean = torch.rand(len(clean), 1, 1, 1, device=device) < recipe.clean_share
    return pictures, torch.where(is_clean, clean, guesses / drawer.scale)


def _guesses(drawer: Drawer, clean: Tensor, captions: list[str], recipe: DecoderRecipe) -> Tensor:
    """The denoiser's guided guesses at the clean latents, each from a noise level of its own."""
    schedule, rows = training_schedule(), len(clean)
    spread = (torch.randperm(rows) + torch.rand(rows)) / rows
    timesteps = (spread * recipe.noisiest * schedule.config.num_train_timesteps).long().to(clean.device)
    noisy = schedule.add_noise(clean, torch.randn_like(clean), timesteps)
    tokens = drawer.tokenizer([*captions, *[""] * rows], padding="max_length", truncation=True, return_tensors="pt")
    text = drawer.text_encoder(tokens.input_ids.to(clean.device)).last_hidden_state
    velocity = drawer.unet(
        noisy.repeat(2, 1, 1, 1).contiguous(memory_format=torch.channels_last),
        timesteps.repeat(2),
        encoder_hidden_states=text,
    ).sample.float()
    told, untold = velocity.chunk(2)
    kept = schedule.alphas_cumprod.to(clean.device)[timesteps][:, None, None, None]
    return kept.sqrt() * noisy - (1 - kept).sqrt() * (untold + recipe.guidance * (told - untold))


def _cropped(pictures: Tensor, latents: Tensor, side: int, rng: random.Random) -> tuple[Tensor, Tensor]:
    """The same window of both, one for all rows; of three candidates the one with most in it."""
    corners = [[rng.randrange(LATENT_SIDE - side + 1) for _ in range(2)] for _ in range(3)]
    windows = [
        pictures[..., y * _FACTOR : (y + side) * _FACTOR, x * _FACTOR : (x + side) * _FACTOR] for y, x in corners
    ]
    best = max(range(len(corners)), key=lambda i: float(windows[i].diff(dim=-1).abs().mean()))
    y, x = corners[best]
    return windows[best].contiguous(memory_format=torch.channels_last), latents[..., y : y + side, x : x + side]


def _teach(
    critic: Discriminator, optimizer: torch.optim.Optimizer, drawn: Tensor, target: Tensor, device: torch.device
) -> float:
    """One step of the discriminator, with the hinge loss."""
    with fast(device):
        score, _ = critic(torch.cat([target, drawn]))
    real, false = score.float().chunk(2)
    loss = F.relu(1 - real).mean() + F.relu(1 + false).mean()
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return loss.item()


def _judged(
    critic: Discriminator, drawn: Tensor, target: Tensor, recipe: DecoderRecipe, device: torch.device
) -> Tensor:
    """What the discriminator makes of it: how false it looks, and how far its features are."""
    with fast(device):
        with torch.no_grad():
            _, wanted = critic(target)
        score, features = critic(drawn)
    apart = sum((F.l1_loss(a.float(), b.float()) for a, b in zip(features, wanted, strict=True)), torch.zeros(()))
    return -recipe.adversarial * score.float().mean() + recipe.features * apart
