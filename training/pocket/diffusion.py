"""Stage 5: the denoiser, trained on cached latents; the text encoder stays as the reading left it."""

from __future__ import annotations

import copy
import random
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import CLIPTextModel, CLIPTokenizer

from training.pocket import checkpoint, reading, words
from training.pocket.latents import Views, load_shards
from training.pocket.model import build_text_encoder, build_unet, training_schedule
from training.pocket.muon import Muon, split_parameters
from training.pocket.precision import fast

_RELOAD_EVERY = 100


@dataclass(frozen=True)
class DiffusionRecipe:
    """How long and how; one step sees `captions * noises` rows."""

    steps: int = 10_200
    captions: int = 32
    noises: int = 2  # noise levels per caption
    learning_rate: float = 0.01
    empty_share: float = 0.1
    unknown_word_share: float = 0.03
    average: float = 0.997
    noisier: float = 1.6  # 1: all timesteps alike; above: more of the noisy ones, where shapes are decided
    seed: int = 7


class Networks(nn.Module):
    """The denoiser, and the text encoder that it listens to."""

    def __init__(self, tokenizer: CLIPTokenizer) -> None:
        super().__init__()
        self.unet: UNet2DConditionModel = build_unet()
        self.text_encoder: CLIPTextModel = build_text_encoder(tokenizer)


@dataclass(frozen=True)
class Batch:
    """Clean latents (rows, 8, 16, 16), and their token ids (captions, 77)."""

    latents: Tensor
    tokens: Tensor


def train(
    folder: Path, tokenizer: CLIPTokenizer, scale: float, recipe: DiffusionRecipe, device: torch.device
) -> Networks:
    """Train (or go on), keep `folder`/diffusion.pt; the averaged networks come back."""
    torch.manual_seed(recipe.seed)
    networks = Networks(tokenizer)
    networks.text_encoder = reading.trained(folder, words.trained(folder, tokenizer))
    networks.text_encoder.requires_grad_(False)
    networks.to(device, memory_format=torch.channels_last)
    average = averaged(networks, recipe)
    optimizer = Muon(*split_parameters(networks.unet), lr=recipe.learning_rate, weight_decay=0.01)
    path = folder / "diffusion.pt"
    reader = copy.deepcopy(networks.text_encoder.state_dict())
    state = checkpoint.resume(path, networks=networks, average=average, optimizer=optimizer)
    for one in (networks, _module(average)):
        one.text_encoder.load_state_dict(reader)
    torch.manual_seed(recipe.seed + state.step)
    source = _Source(load_shards(folder / "latents"), tokenizer, scale, random.Random(recipe.seed + state.step))
    autosave = checkpoint.Autosave()
    started, before, recent = time.monotonic(), state.seconds, 0.0
    while state.step < recipe.steps:
        _set_rate(optimizer, recipe, state.step)
        loss = _loss(networks, source.draw(recipe, device), recipe)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(networks.unet.parameters(), 1.0)
        optimizer.step()
        average.update_parameters(networks)
        state.step += 1
        state.seconds = before + time.monotonic() - started
        recent = loss.item() if not recent else 0.98 * recent + 0.02 * loss.item()
        if state.step % 50 == 0:
            print(
                f"diffusion step {state.step}/{recipe.steps}  {state.seconds:.0f} s"
                f"  loss {recent:.4f}  views {len(source.views.captions)}",
                flush=True,
            )
        if state.step % _RELOAD_EVERY == 0:
            source.views = load_shards(folder / "latents")
        if autosave.is_due():
            checkpoint.save(path, state, networks=networks, average=average, optimizer=optimizer)
    checkpoint.save(path, state, networks=networks, average=average, optimizer=optimizer)
    return _module(average)


def trained(folder: Path, tokenizer: CLIPTokenizer) -> Networks:
    """The averaged networks that `folder`/diffusion.pt holds."""
    average = averaged(Networks(tokenizer))
    checkpoint.resume(folder / "diffusion.pt", average=average)
    return _module(average)


def averaged(networks: Networks, recipe: DiffusionRecipe | None = None) -> AveragedModel:
    """A running average that starts at the networks as they are."""
    recipe = recipe or DiffusionRecipe()
    return AveragedModel(networks, multi_avg_fn=get_ema_multi_avg_fn(recipe.average))


def _module(average: AveragedModel) -> Networks:
    networks = average.module
    assert isinstance(networks, Networks)
    return networks.eval()


def _set_rate(optimizer: torch.optim.Optimizer, recipe: DiffusionRecipe, step: int) -> None:
    warm = min(1.0, (step + 1) / 50)
    cooled = max(0.01, min(1.0, (1 - step / recipe.steps) / 0.4))
    for group in optimizer.param_groups:
        group["lr"] = recipe.learning_rate * warm * cooled


@dataclass
class _Source:
    """Where batches come from; `views` grows as shards are made."""

    views: Views
    tokenizer: CLIPTokenizer
    scale: float
    rng: random.Random

    def draw(self, recipe: DiffusionRecipe, device: torch.device) -> Batch:
        captions = self.views.captions
        chosen = [self.rng.randrange(len(captions)) for _ in range(recipe.captions)]
        texts = [_text(self.rng.choice(captions[i]), recipe, self.rng) for i in chosen]
        tokens = self.tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids
        latents = self.views.latents[chosen].float() * self.scale
        return Batch(latents.repeat(recipe.noises, 1, 1, 1).to(device), tokens.to(device))


def _text(caption: str, recipe: DiffusionRecipe, rng: random.Random) -> str:
    """The caption, sometimes nothing (for guidance), sometimes with words that mean nothing."""
    if rng.random() < recipe.empty_share:
        return ""
    return words.with_unknown_word(caption, recipe.unknown_word_share, rng)


def _loss(networks: Networks, batch: Batch, recipe: DiffusionRecipe) -> Tensor:
    """Mean squared error of the velocity (Salimans & Ho, 2022)."""
    schedule = training_schedule()
    rows = len(batch.latents)
    # One timestep from each of `rows` equal parts of the range: less variance than free draws.
    spread = (torch.randperm(rows) + torch.rand(rows)) / rows
    spread = 1 - (1 - spread) ** recipe.noisier
    count = schedule.config.num_train_timesteps
    timesteps = (spread * count).long().clamp(max=count - 1).to(batch.latents.device)  # spread may round to 1
    noise = torch.randn_like(batch.latents)
    noisy = schedule.add_noise(batch.latents, noise, timesteps)
    target = schedule.get_velocity(batch.latents, noise, timesteps)
    with fast(batch.latents.device):
        with torch.no_grad():
            text = networks.text_encoder(batch.tokens).last_hidden_state.repeat(recipe.noises, 1, 1)
        predicted = networks.unet(
            noisy.contiguous(memory_format=torch.channels_last), timesteps, encoder_hidden_states=text
        ).sample
    return F.mse_loss(predicted.float(), target)
