"""How crisp pictures are, and how far they are from real renders: numbers without words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from training.pocket.classifier import Classifier, shrink
from training.pocket.concepts import Scene
from training.pocket.render import Pixels, grid_views

_CONTOUR = 0.05  # gradient energy above which a real render has a contour; white to black, softened, has about 2
_NEAR = 2  # pixels to either side of a contour that count as being at it


def edge_sharpness(drawn: Sequence[Tensor], scenes: Sequence[Scene]) -> tuple[float, float]:
    """(gradient energy at the real renders' contours, as a share of theirs; mean absolute difference in [-1, 1]).

    Each picture is compared with that real view of its scene, of all that the grid has, that it is nearest to: a
    contour that is blurred, and one that is elsewhere, both cost energy there.
    """
    energies = torch.zeros(2)
    apart = 0.0
    for picture, scene in zip(drawn, scenes, strict=True):
        real = nearest_view(picture, scene)
        energies += torch.stack(_energies(picture.clamp(-1, 1), real))
        apart += float((picture.clamp(-1, 1) - real).abs().mean()) / len(drawn)
    return float(energies[0] / energies[1]), apart


def nearest_view(picture: Tensor, scene: Scene) -> Tensor:
    """The picture (3, 256, 256) is compared with each view of the scene on the grid; the nearest one is returned."""
    views = torch.stack([as_tensor(view) for view in grid_views(scene)])
    return views[(views - picture).abs().flatten(1).mean(1).argmin()]


def as_tensor(pixels: Pixels) -> Tensor:
    """(3, h, w) in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1).float() / 127.5 - 1


def _energies(picture: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """The picture's and the real render's squared gradients, summed near the real one's contours."""
    wanted = _gradient_energy(real)
    near = F.max_pool2d((wanted > _CONTOUR).float()[None], 2 * _NEAR + 1, 1, _NEAR)[0]
    return (_gradient_energy(picture) * near).sum(), (wanted * near).sum()


def _gradient_energy(picture: Tensor) -> Tensor:
    """(h, w): squared central differences of all three channels."""
    padded = F.pad(picture[None], (1, 1, 1, 1), mode="replicate")[0]
    across = (padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]) / 2
    down = (padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]) / 2
    return (across.square() + down.square()).sum(0)


@torch.inference_mode()
def features(judge: Classifier, pictures: Tensor) -> Tensor:
    """The judge's last convolution's channels, each averaged over the picture: (n, 256)."""
    return torch.cat([judge.features(shrink(part)).mean((2, 3)) for part in pictures.split(64)])


def frechet_distance(one: Tensor, other: Tensor) -> float:
    """Between Gaussians fitted to two sets of features (Heusel et al., 2017)."""
    one, other = one.double(), other.double()
    covered, covering = one.T.cov(), other.T.cov()
    root = _root(covered)
    shared = _root(root @ covering @ root).trace()
    means = (one.mean(0) - other.mean(0)).square().sum()
    return float(means + covered.trace() + covering.trace() - 2 * shared)


def _root(matrix: Tensor) -> Tensor:
    """The square root of a symmetric matrix without negative eigenvalues, but for rounding."""
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T
