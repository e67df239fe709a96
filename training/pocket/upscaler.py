"""The upscaler: a picture four times as large, by a compact network, learned from the icons.

Targets are scenes rendered at 1024, inputs the same ones reduced to 256, by several filters; a share of the inputs went
through pocket's own autoencoder, whose softness the network so learns to take away. The network is Real-ESRGAN's
compact one (Wang et al. 2021), in the layout that other programs know. Scenes with a held-out icon are only measured.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from training.pocket import checkpoint
from training.pocket.autoencoder import pixel_loss
from training.pocket.concepts import HERE, Scene, random_scene
from training.pocket.muon import Muon, split_parameters
from training.pocket.precision import fast
from training.pocket.render import SIDE, Pixels, render

SCALE = 4
SHIPPED = HERE.parents[1] / "daemon" / "craftd" / "pocket"
_HELD_OUT_EVERY = 13
_FILTERS = (Image.Resampling.BOX, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)
_AVERAGED = 0.998  # of the weights, an exponential average is kept


@dataclass(frozen=True)
class UpscalerRecipe:
    """How long and on what."""

    steps: int = 2400
    pictures: int = 260
    batch: int = 16
    crop: int = 40  # pixels of the input
    softened: float = 0.4  # share of crops whose input the autoencoder has seen
    learning_rate: float = 6e-3
    features: int = 64
    convolutions: int = 16
    seed: int = 11


@dataclass(frozen=True)
class Pair:
    """One scene: as it should be, reduced, and reduced and softened; uint8 (3, height, width)."""

    target: Tensor
    small: Tensor
    soft: Tensor


class Compact(nn.Module):
    """Convolutions at the input's size; what they say is added to the input's pixels, drawn large."""

    def __init__(self, features: int, convolutions: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, features, 3, 1, 1), nn.PReLU(features)]
        for _ in range(convolutions):
            layers += [nn.Conv2d(features, features, 3, 1, 1), nn.PReLU(features)]
        self.body = nn.ModuleList([*layers, nn.Conv2d(features, 3 * SCALE**2, 3, 1, 1)])
        self._begin_with_bilinear()

    @torch.no_grad()
    def _begin_with_bilinear(self) -> None:
        """Three features carry the picture to the last layer, which draws it large without steps: the rest is learned.

        Without that, the steps of the pixels drawn large stay to be seen for thousands of batches.
        """
        convolutions = [layer for layer in self.body if isinstance(layer, nn.Conv2d)]
        for layer in convolutions[:-1]:
            layer.weight[:3] = 0
            layer.bias[:3] = 0
            for channel in range(3):
                layer.weight[channel, channel, 1, 1] = 1
        for layer in self.body:
            if isinstance(layer, nn.PReLU):
                layer.weight[:3] = 1
        last = convolutions[-1]
        last.weight *= 0.1
        last.weight[:, :3] = 0
        last.bias.zero_()
        for channel in range(3):
            last.weight[channel * SCALE**2 : (channel + 1) * SCALE**2, channel] = _less_steps()

    def forward(self, pictures: Tensor) -> Tensor:
        """From 0 to 1, (batch, 3, height, width), to four times the height and width."""
        out = pictures
        for layer in self.body:
            out = layer(out)
        return F.pixel_shuffle(out, SCALE) + F.interpolate(pictures, scale_factor=SCALE, mode="nearest")


def _less_steps() -> Tensor:
    """What bilinear scaling draws of one pixel and its neighbours, less the pixel itself: (places, 3, 3)."""
    neighbours = torch.eye(9).reshape(9, 1, 3, 3)
    drawn = F.interpolate(F.pad(neighbours, (1, 1, 1, 1)), scale_factor=SCALE, mode="bilinear", align_corners=False)
    kernels = drawn[:, 0, 2 * SCALE : 3 * SCALE, 2 * SCALE : 3 * SCALE].reshape(3, 3, -1).permute(2, 0, 1).clone()
    kernels[:, 1, 1] -= 1
    return kernels


def is_held_out(scene: Scene) -> bool:
    """Whether it shows an icon that is only measured with."""
    return any(concept.index % _HELD_OUT_EVERY == 0 for concept in scene.concepts)


def pairs(count: int, rng: random.Random, wanted: Callable[[Scene], bool]) -> list[Pair]:
    """So many scenes that are wanted."""
    vae = AutoencoderTiny.from_pretrained(SHIPPED / "vae", torch_dtype=torch.float32).eval()
    return [_pair(_scene(rng, wanted), rng, vae) for _ in range(count)]


def _scene(rng: random.Random, wanted: Callable[[Scene], bool]) -> Scene:
    while not wanted(scene := random_scene(rng)):
        pass
    return scene


def _pair(scene: Scene, rng: random.Random, vae: AutoencoderTiny) -> Pair:
    target = render(scene, rng, SCALE)
    reduced = Image.fromarray(target).resize((SIDE, SIDE), rng.choice(_FILTERS))
    small = _tensor(np.asarray(reduced))
    return Pair(_tensor(target), small, _softened(small, vae))


@torch.inference_mode()
def _softened(picture: Tensor, vae: AutoencoderTiny) -> Tensor:
    with fast(torch.device("cpu")):
        soft = vae.decoder(vae.encoder(picture[None].float() / 127.5 - 1))
    return ((soft[0].float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def _tensor(pixels: Pixels) -> Tensor:
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).contiguous()


def train(folder: Path, recipe: UpscalerRecipe) -> Compact:
    """Train (or go on training); the averaged weights are kept in `folder`/upscaler.pt."""
    torch.manual_seed(recipe.seed)
    model, averaged = (Compact(recipe.features, recipe.convolutions) for _ in range(2))
    averaged.load_state_dict(model.state_dict())
    model.to(memory_format=torch.channels_last)
    optimizer = Muon(*split_parameters(model), lr=recipe.learning_rate, others_ratio=0.05)
    file = folder / "upscaler.pt"
    state = checkpoint.resume(file, model=model, averaged=averaged, optimizer=optimizer)
    rng = random.Random(recipe.seed + state.step)
    shown = pairs(recipe.pictures, rng, lambda scene: not is_held_out(scene))
    autosave = checkpoint.Autosave(interval_s=180)
    started, before = time.monotonic(), state.seconds
    while state.step < recipe.steps:
        _set_rate(optimizer, recipe, state)
        given, target = _batch(shown, recipe, rng)
        with fast(torch.device("cpu")):
            drawn = model(given)
        loss = pixel_loss(drawn.float(), target)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        _average(averaged, model, state.step)
        state.step += 1
        state.seconds = before + time.monotonic() - started
        if state.step % 50 == 0:
            print(
                f"upscaler step {state.step}/{recipe.steps}  {state.seconds:.0f} s  loss {loss.item():.4f}", flush=True
            )
        if autosave.is_due():
            checkpoint.save(file, state, model=model, averaged=averaged, optimizer=optimizer)
    checkpoint.save(file, state, model=model, averaged=averaged, optimizer=optimizer)
    return averaged.eval()


def _set_rate(optimizer: torch.optim.Optimizer, recipe: UpscalerRecipe, state: checkpoint.Progress) -> None:
    share = state.step / recipe.steps
    warm, cooled = min(1.0, (state.step + 1) / 50), max(0.01, min(1.0, (1 - share) / 0.7))
    for group in optimizer.param_groups:
        group["lr"] = recipe.learning_rate * warm * cooled


@torch.no_grad()
def _average(averaged: nn.Module, model: nn.Module, step: int) -> None:
    share = 1 - min(_AVERAGED, (step + 1) / (step + 10))
    for mean, now in zip(averaged.parameters(), model.parameters(), strict=True):
        mean.lerp_(now, share)


def _batch(shown: list[Pair], recipe: UpscalerRecipe, rng: random.Random) -> tuple[Tensor, Tensor]:
    """Inputs and targets from 0 to 1, turned, mirrored and with colours exchanged at random."""
    cut = [_crop(rng.choice(shown), recipe, rng) for _ in range(recipe.batch)]
    given, target = (torch.stack(some).float() / 255 for some in zip(*cut, strict=True))
    layout = torch.channels_last
    return given.contiguous(memory_format=layout), target.contiguous(memory_format=layout)


def _crop(pair: Pair, recipe: UpscalerRecipe, rng: random.Random) -> tuple[Tensor, Tensor]:
    """Of three places the busiest, since most pixels are plain."""
    source = pair.soft if rng.random() < recipe.softened else pair.small
    tries = [tuple(rng.randrange(SIDE - recipe.crop + 1) for _ in range(2)) for _ in range(3)]
    y, x = max(tries, key=lambda place: _busyness(_cut(pair.small, *place, recipe.crop)))
    turns, mirrors, channels = rng.randrange(4), rng.random() < 0.5, rng.sample(range(3), 3)

    def turned(cut: Tensor) -> Tensor:
        cut = torch.rot90(cut[channels], turns, (1, 2))
        return cut.flip(2) if mirrors else cut

    small = _cut(source, y, x, recipe.crop)
    return turned(small), turned(_cut(pair.target, y * SCALE, x * SCALE, recipe.crop * SCALE))


def _cut(picture: Tensor, y: int, x: int, side: int) -> Tensor:
    return picture[:, y : y + side, x : x + side]


def _busyness(crop: Tensor) -> float:
    numbers = crop.float()
    return float(numbers.diff(dim=1).abs().mean() + numbers.diff(dim=2).abs().mean())


def export(model: Compact, file: Path) -> None:
    """Half precision, under the names that other programs know."""
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.half().contiguous() for name, value in model.state_dict().items()}, file)
    file.chmod(0o644)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.pocket.upscaler", description=__doc__)
    parser.add_argument("--work", type=Path, default=HERE / "work", help="where the checkpoint lies")
    parser.add_argument("--out", type=Path, default=SHIPPED / "upscaler" / "pocket-x4.safetensors")
    parser.add_argument("--steps", type=int, default=UpscalerRecipe.steps)
    parser.add_argument("--pictures", type=int, default=UpscalerRecipe.pictures)
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0: torch's choice")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    recipe = replace(UpscalerRecipe(), steps=options.steps, pictures=options.pictures)
    export(train(options.work, recipe), options.out)


if __name__ == "__main__":
    main()
