"""The numbers that say how crisp pictures are, and how far from real ones."""

from __future__ import annotations

import random

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.pocket_measures import as_tensor, edge_sharpness, frechet_distance, nearest_view
from training.pocket.concepts import Scene, concepts
from training.pocket.render import render_on_grid

SCENES = [Scene((concept,), "blue") for concept in concepts()[:3]]
REAL = [as_tensor(render_on_grid(scene, random.Random(5))) for scene in SCENES]


def _blurred(picture: Tensor, width: int) -> Tensor:
    return F.avg_pool2d(picture[None], width, 1, width // 2, count_include_pad=False)[0]


def test_real_renders_are_exactly_as_sharp_as_real_renders() -> None:
    assert edge_sharpness(REAL, SCENES) == (1.0, 0.0)


def test_blur_costs_sharpness_and_more_blur_costs_more() -> None:
    little, much = (edge_sharpness([_blurred(p, width) for p in REAL], SCENES)[0] for width in (3, 7))
    assert 0.0 < much < little < 0.8


def test_contours_elsewhere_are_no_contours_here() -> None:
    moved = [p.roll(12, 2) for p in REAL]
    assert edge_sharpness(moved, SCENES)[0] < 0.5


def test_the_nearest_view_is_the_one_that_was_drawn() -> None:
    for picture, scene in zip(REAL, SCENES, strict=True):
        assert torch.equal(nearest_view(_blurred(picture, 5), scene), picture)


def test_the_frechet_distance_of_a_set_to_itself_is_nothing_and_to_a_moved_one_the_square_of_the_way() -> None:
    some = torch.randn(400, 6, generator=torch.Generator().manual_seed(1))
    assert frechet_distance(some, some) == pytest.approx(0.0, abs=1e-5)
    assert frechet_distance(some, some + 2) == pytest.approx(6 * 4, rel=1e-4)
    assert frechet_distance(some, 3 * some) > 6
