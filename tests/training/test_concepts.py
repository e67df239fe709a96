"""pocket's concepts, captions and scenes."""

from __future__ import annotations

import random

from training.pocket.concepts import COLORS, SIZES, Scene, caption, concepts, is_held_out, random_scene


def test_at_least_500_things_with_a_picture_each_and_no_name_twice() -> None:
    known = concepts()
    assert len(known) >= 500
    assert all(c.icon_path.exists() for c in known)
    names = [name for c in known for name in (c.name, *c.aliases)]
    assert len(names) == len(set(names))


def test_at_least_ten_background_colours() -> None:
    assert len(COLORS) >= 10


def test_training_never_draws_a_held_out_pair() -> None:
    rng = random.Random(0)
    assert not any(is_held_out(random_scene(rng)) for _ in range(3000))


def test_about_a_tenth_of_the_pairs_is_held_out() -> None:
    rng = random.Random(0)
    pairs = [Scene(tuple(rng.sample(concepts(), 2))) for _ in range(3000)]
    assert 0.07 < sum(map(is_held_out, pairs)) / len(pairs) < 0.13


def test_holding_out_ignores_the_order_of_a_pair() -> None:
    first, second = concepts()[:2]
    assert is_held_out(Scene((first, second))) == is_held_out(Scene((second, first)))


def test_a_caption_names_everything_in_the_scene() -> None:
    rng = random.Random(1)
    for _ in range(500):
        scene = random_scene(rng)
        words = caption(scene, rng)
        assert all(any(n in words for n in (c.name, *c.aliases)) for c in scene.concepts)
        assert scene.size is None or any(word in words for word in SIZES[scene.size])
        assert scene.background == "white" or "background" in words
