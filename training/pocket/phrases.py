"""What people write for a scene, beside the captions that pocket is taught: other words, other forms.

A `Phrase` knows where each thing's name ends, so that a text encoder can be taught to mean there what it
means where the caption's name ends.
"""

from __future__ import annotations

import csv
import random
from dataclasses import dataclass
from functools import cache

from training.pocket.concepts import HERE, Concept, Scene

_SIZES = {"small": ("small", "tiny", "little", "mini"), "large": ("large", "big", "huge", "giant")}
_PLACES = {
    "left": ("on the left", "at the left", "to the left", "on the left side", "left"),
    "right": ("on the right", "at the right", "to the right", "on the right side", "right"),
    "center": ("in the center", "in the middle", "centered", "in the centre"),
}
_COLORS = {
    "gray": ("gray", "grey", "silver"),
    "red": ("red", "crimson", "scarlet"),
    "yellow": ("yellow", "golden"),
    "green": ("green", "lime green"),
    "cyan": ("cyan", "turquoise", "teal"),
    "blue": ("blue", "navy blue"),
    "purple": ("purple", "violet", "lilac"),
}
_BACKGROUNDS = (
    ", {} background",
    " on a {} background",
    " on {} background",
    " on {}",
    " with a {} background",
    " in front of a {} background",
    " against a {} background",
)
_OPENINGS = (
    "a picture of ",
    "a drawing of ",
    "an icon of ",
    "an image of ",
    "an emoji of ",
    "a photo of ",
    "draw ",
    "please draw ",
    "make ",
    "I want ",
)
_ARTICLES = ("a ", "the ", "", "my ", "one ", "some ", "this ")
_ADJECTIVES = ("cute ", "nice ", "simple ", "beautiful ", "lovely ", "funny ")
_JOINTS = (" and ", " with ", " next to ", " beside ", " & ", ", ", " and also ")
_ENDINGS = (" emoji", " icon", " please", ", flat icon")
_UNCOUNTED = {"bacon", "corn", "rice", "milk", "tea", "honey", "dna", "money", "bread"}
_IRREGULAR = {
    "mouse": "mice",
    "goose": "geese",
    "tooth": "teeth",
    "knife": "knives",
    "wolf": "wolves",
    "leaf": "leaves",
    "loaf": "loaves",
    "fish": "fish",
    "sheep": "sheep",
    "deer": "deer",
    "shrimp": "shrimp",
    "tomato": "tomatoes",
    "potato": "potatoes",
    "die": "dice",
}


@dataclass(frozen=True)
class Phrase:
    """Some text, and after how many characters each thing's name ends."""

    text: str
    name_ends: tuple[int, ...]


@cache
def synonyms() -> dict[str, tuple[str, ...]]:
    """Other words for a thing, or for what is near to it, by its name."""
    with (HERE / "synonyms.tsv").open(encoding="utf-8") as file:
        return {row["name"]: tuple(row["words"].split(",")) for row in csv.DictReader(file, delimiter="\t")}


def plain(scene: Scene) -> Phrase:
    """The caption in its plainest form, as it was taught."""
    parts: list[str] = []
    ends: list[int] = []
    for concept in scene.concepts:
        parts.append((" and " if parts else "") + _with_article(f"{scene.size} {concept.name}".removeprefix("None ")))
        ends.append(len("".join(parts)))
    place = {"left": " on the left", "right": " on the right", "center": " in the center", None: ""}[scene.place]
    background = "" if scene.background == "white" else f", {scene.background} background"
    return Phrase("".join(parts) + place + background, tuple(ends))


def written(scene: Scene, rng: random.Random) -> Phrase:
    """The scene as somebody might write it."""
    text = rng.choice(_OPENINGS) if rng.random() < 0.3 else ""
    ends: list[int] = []
    joint = rng.choice(_JOINTS)
    for concept in scene.concepts:
        text += (joint if ends else "") + _thing(concept, scene.size, rng)
        ends.append(len(text))
    if len(ends) == 1 and rng.random() < 0.15:
        text += rng.choice(_ENDINGS)
    if scene.place:
        text += rng.choice([" ", ", "]) + rng.choice(_PLACES[scene.place])
    if scene.background != "white" or rng.random() < 0.15:
        text += rng.choice(_BACKGROUNDS).format(rng.choice(_COLORS.get(scene.background, (scene.background,))))
    return Phrase(text, tuple(ends))


def plural(name: str) -> str:
    """The name of several; names that end in s, or are not counted, stay."""
    first, _, last = name.rpartition(" ")
    return f"{first} {_plural(last)}".lstrip()


def _plural(word: str) -> str:
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if word in _UNCOUNTED or (word.endswith("s") and not word.endswith("ss")):
        return word
    if word.endswith(("s", "x", "z", "ch", "sh")):
        return word + "es"
    if word.endswith("y") and word[-2:-1] not in "aeiou":
        return word[:-1] + "ies"
    return word + "s"


def _thing(concept: Concept, size: str | None, rng: random.Random) -> str:
    name = rng.choice([concept.name, *concept.aliases, *synonyms().get(concept.name, ())])
    words = rng.choice(_SIZES[size]) + " " if size else ""
    if rng.random() < 0.15:
        words += rng.choice(_ADJECTIVES)
    if rng.random() < 0.2:
        return rng.choice(["", "some ", "the "]) + words + plural(name)
    article = rng.choice(_ARTICLES)
    return _with_article(words + name) if article == "a " else article + words + name


def _with_article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"
