"""Scenes become pixels where and how the caption says."""

from __future__ import annotations

import random

import numpy as np
import pytest

from training.pocket.concepts import COLORS, Scene, concepts
from training.pocket.render import SIDE, Pixels, render

CIRCLE = next(c for c in concepts() if c.name == "black circle")


def _ink(picture: Pixels) -> np.ndarray:
    return np.argwhere((picture.astype(int).sum(axis=2)) < 300)


def test_the_same_seed_gives_the_same_picture_and_another_one_another() -> None:
    scene = Scene((CIRCLE,))
    first, again, other = (render(scene, random.Random(seed)) for seed in (1, 1, 2))
    assert first.shape == (SIDE, SIDE, 3)
    assert (first == again).all()
    assert (first != other).any()


@pytest.mark.parametrize("color", COLORS)
def test_the_background_is_the_asked_colour(color: str) -> None:
    corner = render(Scene((CIRCLE,), color), random.Random(3))[2, 2].astype(int)
    assert np.abs(corner - COLORS[color]).max() <= 9


def test_left_and_right() -> None:
    left, right = (_ink(render(Scene((CIRCLE,), place=p), random.Random(4)))[:, 1].mean() for p in ("left", "right"))
    assert left < SIDE * 0.35 < SIDE * 0.65 < right


def test_small_is_smaller_than_large() -> None:
    small, large = (len(_ink(render(Scene((CIRCLE,), size=s), random.Random(5)))) for s in ("small", "large"))
    assert small * 3 < large


def test_two_things_stand_side_by_side() -> None:
    ink = _ink(render(Scene((CIRCLE, CIRCLE)), random.Random(6)))[:, 1]
    on_the_left = (ink < SIDE / 2).mean()
    assert 0.35 < on_the_left < 0.65
    near_the_middle = (abs(ink - SIDE / 2) < 8).mean()
    assert near_the_middle < 0.05
