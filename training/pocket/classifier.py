"""The judge: a small classifier of rendered pictures, for measuring pocket.

It never sees the views that the diffusion model learned from (other seeds), and it
proves nothing unless it names at least 98 % of real renders that it has not seen.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.pocket import checkpoint
from training.pocket.concepts import COLORS, Scene, concepts
from training.pocket.muon import Muon, split_parameters
from training.pocket.render import render

SIDE = 64
_SEED = 990_001  # far from the seeds of the training views


@dataclass(frozen=True)
class ClassifierRecipe:
    """How much it sees."""

    renders: int = 24_000
    epochs: int = 6
    batch: int = 64
    learning_rate: float = 0.02


class Classifier(nn.Module):
    """Pictures (n, 3, 64, 64) in [-1, 1] to scores (n, concepts)."""

    def __init__(self) -> None:
        super().__init__()
        widths = (32, 64, 128, 192)
        layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 3, 2, 1), nn.BatchNorm2d(widths[0]), nn.ReLU()]
        for narrow, wide in zip(widths, (*widths[1:], 256), strict=True):
            layers += [nn.Conv2d(narrow, wide, 3, 1, 1), nn.BatchNorm2d(wide), nn.ReLU(), nn.MaxPool2d(2)]
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(256 * 4, len(concepts()))

    def forward(self, pictures: Tensor) -> Tensor:
        scores: Tensor = self.head(self.features(pictures).flatten(1))
        return scores


def trained(path: Path, recipe: ClassifierRecipe | None = None) -> Classifier:
    """The classifier that `path` holds, trained now if it holds none."""
    classifier = Classifier()
    if checkpoint.resume(path, classifier=classifier).step == 0:
        _train(classifier, recipe or ClassifierRecipe())
        checkpoint.save(path, checkpoint.Progress(step=1), classifier=classifier)
    return classifier.eval()


def real_accuracy(classifier: Classifier, count: int = 2000) -> float:
    """Top-1 share on real renders it has never seen, every kind of scene with one thing."""
    pictures, labels = _renders(count, random.Random(_SEED + 1))
    with torch.inference_mode():
        scores = torch.cat([classifier(part) for part in _scaled(pictures).split(256)])
    return float((scores.argmax(1) == labels).float().mean())


def shrink(pictures: Tensor) -> Tensor:
    """(n, 3, 256, 256) in [-1, 1] to what the classifier takes."""
    return F.interpolate(pictures, (SIDE, SIDE), mode="area")


def _train(classifier: Classifier, recipe: ClassifierRecipe) -> None:
    torch.manual_seed(_SEED)
    pictures, labels = _renders(recipe.renders, random.Random(_SEED))
    optimizer = Muon(*split_parameters(classifier), lr=recipe.learning_rate)
    steps, step, started = recipe.epochs * (len(pictures) // recipe.batch), 0, time.monotonic()
    classifier.train()
    for _ in range(recipe.epochs):
        for chosen in torch.randperm(len(pictures)).split(recipe.batch)[: len(pictures) // recipe.batch]:
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate * (1 - step / steps)
            batch = _augmented(_scaled(pictures[chosen]))
            loss = F.cross_entropy(classifier(batch), labels[chosen], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            if step % 100 == 0:
                print(f"classifier {step}/{steps}  {time.monotonic() - started:.0f} s  loss {loss:.3f}", flush=True)


def _renders(count: int, rng: random.Random) -> tuple[Tensor, Tensor]:
    pictures = torch.empty(count, 3, SIDE, SIDE, dtype=torch.uint8)
    labels = torch.empty(count, dtype=torch.long)
    for i in range(count):
        concept = concepts()[i % len(concepts())]
        scene = Scene(
            (concept,),
            rng.choice(["white", *COLORS]),
            rng.choice([None, None, "small", "large"]),
            rng.choice([None, None, "left", "right"]),
        )
        full = torch.from_numpy(render(scene, rng)).permute(2, 0, 1)[None].float()
        pictures[i] = F.interpolate(full, (SIDE, SIDE), mode="area")[0].round().byte()
        labels[i] = concept.index
    return pictures, labels


def _scaled(pictures: Tensor) -> Tensor:
    return pictures.float() / 127.5 - 1


def _augmented(pictures: Tensor) -> Tensor:
    """A little blur and shift, so that it judges shapes and not the renderer's edges."""
    down, right = (int(v) for v in torch.randint(-3, 4, (2,)))
    pictures = pictures.roll((down, right), (2, 3))
    if torch.rand(()) < 0.3:
        pictures = F.interpolate(F.avg_pool2d(pictures, 2), scale_factor=2, mode="bilinear", align_corners=False)
    return pictures + 0.03 * torch.randn_like(pictures)
