"""What people write for a scene, and where the names end in it."""

from __future__ import annotations

import random

import pytest

from training.pocket.concepts import Scene, concepts, random_scene
from training.pocket.phrases import plain, plural, synonyms, written

NAMED = {concept.name: concept for concept in concepts()}


def test_other_words_belong_to_known_things_and_are_no_names_and_stand_once() -> None:
    names = {name for c in concepts() for name in (c.name, *c.aliases)}
    others = [word for words in synonyms().values() for word in words]
    assert set(synonyms()) <= set(NAMED)
    assert not names & set(others)
    assert len(others) == len(set(others))


def test_the_plain_form_is_a_caption_that_was_taught() -> None:
    scene = Scene((NAMED["owl"],), "blue", "small", "left")
    assert plain(scene).text == "a small owl on the left, blue background"
    assert plain(Scene((NAMED["owl"], NAMED["cat"]))).text == "an owl and a cat"


def test_a_phrase_knows_where_each_name_ends() -> None:
    rng = random.Random(2)
    for _ in range(500):
        scene = random_scene(rng, pair_share=0.5)
        for phrase in (plain(scene), written(scene, rng)):
            for concept, end in zip(scene.concepts, phrase.name_ends, strict=True):
                known = [concept.name, *concept.aliases, *synonyms().get(concept.name, ())]
                assert any(phrase.text[:end].endswith((name, plural(name))) for name in known), (phrase, concept)


@pytest.mark.parametrize(
    ("one", "several"),
    [
        ("cat", "cats"),
        ("fox", "foxes"),
        ("cherry blossom", "cherry blossoms"),
        ("strawberry", "strawberries"),
        ("monkey", "monkeys"),
        ("computer mouse", "computer mice"),
        ("compass", "compasses"),
        ("grapes", "grapes"),
        ("bowl of rice", "bowl of rice"),
    ],
)
def test_plurals(one: str, several: str) -> None:
    assert plural(one) == several
