"""Scenes become pixels where and how the caption says."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest

from training.pocket.concepts import COLORS, Scene, concepts
from training.pocket.render import SIDE, Pixels, grid_views, render, render_on_grid

View = Callable[[Scene, random.Random], Pixels]
BOTH = pytest.mark.parametrize("view", [render, render_on_grid])
CIRCLE = next(c for c in concepts() if c.name == "black circle")


def _ink(picture: Pixels) -> np.ndarray:
    return np.argwhere((picture.astype(int).sum(axis=2)) < 300)


@BOTH
def test_the_same_seed_gives_the_same_picture_and_another_one_another(view: View) -> None:
    scene = Scene((CIRCLE,))
    first, again, other = (view(scene, random.Random(seed)) for seed in (1, 1, 2))
    assert first.shape == (SIDE, SIDE, 3)
    assert (first == again).all()
    assert (first != other).any()


@BOTH
@pytest.mark.parametrize("color", COLORS)
def test_the_background_is_the_asked_colour(color: str, view: View) -> None:
    corner = view(Scene((CIRCLE,), color), random.Random(3))[2, 2].astype(int)
    assert np.abs(corner - COLORS[color]).max() <= 9


@BOTH
def test_left_and_right(view: View) -> None:
    left, right = (_ink(view(Scene((CIRCLE,), place=p), random.Random(4)))[:, 1].mean() for p in ("left", "right"))
    assert left < SIDE * 0.35 < SIDE * 0.65 < right


@BOTH
def test_small_is_smaller_than_large(view: View) -> None:
    small, large = (len(_ink(view(Scene((CIRCLE,), size=s), random.Random(5)))) for s in ("small", "large"))
    assert small * 3 < large


@BOTH
def test_two_things_stand_side_by_side(view: View) -> None:
    ink = _ink(view(Scene((CIRCLE, CIRCLE)), random.Random(6)))[:, 1]
    on_the_left = (ink < SIDE / 2).mean()
    assert 0.35 < on_the_left < 0.65
    near_the_middle = (abs(ink - SIDE / 2) < 8).mean()
    assert near_the_middle < 0.05


def test_on_the_grid_an_icon_is_the_same_pattern_moved_by_whole_cells() -> None:
    scene = Scene((CIRCLE,), "blue")
    views = [render_on_grid(scene, random.Random(seed)) for seed in range(40)]
    first = _ink(views[0]) - _ink(views[0]).min(axis=0)
    corners = set()
    for picture in views:
        ink = _ink(picture)
        corners.add(tuple((ink.min(axis=0) - _ink(views[0]).min(axis=0)) % 32))
        assert (ink - ink.min(axis=0) == first).all()
    assert corners == {(0, 0)}
    assert len({picture.tobytes() for picture in views}) == 9


@pytest.mark.parametrize(
    ("scene", "count"),
    [
        (Scene((CIRCLE,)), 9),
        (Scene((CIRCLE,), size="large"), 4),
        (Scene((CIRCLE,), place="left"), 3),
        (Scene((CIRCLE,), place="center"), 1),
        (Scene((CIRCLE, CIRCLE)), 9),
    ],
)
def test_all_views_that_the_grid_has(scene: Scene, count: int) -> None:
    all_of_them = {view.tobytes() for view in grid_views(scene)}
    assert len(all_of_them) == count
    assert all(render_on_grid(scene, random.Random(seed)).tobytes() in all_of_them for seed in range(5))
