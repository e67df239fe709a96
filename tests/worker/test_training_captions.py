"""Captions that vary keep their first tags, lose and reorder no others than was asked, and follow from a seed."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import torch
from craftd.worker.training.captions import varied

from tests.worker.trained import PLAIN

CAPTION = "rex, a dog ,, red, big, wet"
TAGS = ["rex", "a dog", "red", "big", "wet"]


def _many(count: int = 200, **options: object) -> list[list[str]]:
    generator = torch.Generator().manual_seed(3)
    recipe = replace(PLAIN, **options)  # type: ignore[arg-type]
    return [varied(CAPTION, recipe, generator).split(", ") for _ in range(count)]


def test_nothing_is_drawn_where_nothing_varies() -> None:
    generator = torch.Generator().manual_seed(3)
    before = generator.get_state()
    assert varied(CAPTION, PLAIN, generator) == CAPTION
    assert torch.equal(generator.get_state(), before)


def test_tags_are_shuffled_behind_those_that_are_kept() -> None:
    found = _many(shuffle_tags=True, keep_tags=2)
    assert all(one[:2] == TAGS[:2] and sorted(one) == sorted(TAGS) for one in found)
    assert len({tuple(one) for one in found}) == 6
    assert found == _many(shuffle_tags=True, keep_tags=2)


def test_tags_are_dropped_as_often_as_was_asked() -> None:
    counted = Counter(tag for one in _many(tag_dropout=0.25, keep_tags=1) for tag in one)
    assert counted["rex"] == 200
    assert all(120 <= counted[tag] <= 180 for tag in TAGS[1:])
    assert _many(tag_dropout=1.0, keep_tags=1) == [["rex"]] * 200


def test_one_of_several_words_is_taken_each_time() -> None:
    generator = torch.Generator().manual_seed(3)
    recipe = replace(PLAIN, caption_wildcards=True)
    found = Counter(varied("a {red|blue} dog, {{x}} {one}", recipe, generator) for _ in range(200))
    assert found.keys() == {"a red dog, {x} one", "a blue dog, {x} one"}
    assert all(60 <= count <= 140 for count in found.values())
    assert varied("{" * 100_000, recipe, generator) == "{" * 50_000
