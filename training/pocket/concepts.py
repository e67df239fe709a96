"""What pocket knows: concepts, colours, and the captions that describe a scene.

A `Scene` is everything that decides one training picture except its random
placement; `caption` writes it as a person might ask for it.
"""

from __future__ import annotations

import csv
import hashlib
import random
from dataclasses import dataclass
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent

COLORS: dict[str, tuple[int, int, int]] = {
    "white": (255, 255, 255),
    "black": (20, 20, 20),
    "gray": (150, 150, 150),
    "red": (225, 45, 45),
    "orange": (250, 145, 30),
    "yellow": (250, 220, 50),
    "green": (60, 165, 75),
    "cyan": (60, 210, 215),
    "blue": (45, 95, 215),
    "purple": (130, 65, 180),
    "pink": (250, 160, 195),
    "brown": (125, 80, 45),
}
COLOR_ALIASES = {"grey": "gray", "turquoise": "cyan", "violet": "purple"}
SIZES: dict[str, tuple[str, ...]] = {"small": ("small", "tiny"), "large": ("large", "big")}
PLACES: dict[str, tuple[str, ...]] = {
    "left": ("on the left", "left"),
    "right": ("on the right", "right"),
    "center": ("in the center", "in the middle", "centered"),
}
MIRRORED_GROUPS = {"animals", "vehicles and places"}
HELD_OUT_EVERY = 10
PAIR_SHARE = 0.5  # of what is drawn and read about: two things are harder than one


@dataclass(frozen=True)
class Concept:
    """One thing pocket can draw; `icon` is its picture's file stem."""

    index: int
    name: str
    aliases: tuple[str, ...]
    group: str
    icon: str

    @property
    def icon_path(self) -> Path:
        return HERE / "icons" / f"{self.icon}.svg"

    @property
    def may_mirror(self) -> bool:
        return self.group in MIRRORED_GROUPS


@dataclass(frozen=True)
class Scene:
    """One or two concepts on a background; `size` and `place` only for one."""

    concepts: tuple[Concept, ...]
    background: str = "white"
    size: str | None = None
    place: str | None = None


@cache
def concepts() -> tuple[Concept, ...]:
    """All taught concepts, in the order of concepts.tsv."""
    with (HERE / "concepts.tsv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return tuple(
        Concept(i, r["name"], tuple(filter(None, r["aliases"].split(","))), r["group"], r["icon"])
        for i, r in enumerate(rows)
    )


def is_held_out(scene: Scene) -> bool:
    """True for the concept-background and concept-concept pairs training never sees."""
    if len(scene.concepts) == 2:
        key = "+".join(sorted(c.name for c in scene.concepts))
    elif scene.background != "white":
        key = f"{scene.concepts[0].name}@{scene.background}"
    else:
        return False
    return hashlib.sha256(key.encode()).digest()[0] % HELD_OUT_EVERY == 0


def random_scene(rng: random.Random, *, pair_share: float = 0.2) -> Scene:
    """A training scene; never a held-out pair."""
    while True:
        scene = _draw_scene(rng, pair_share)
        if not is_held_out(scene):
            return scene


def _draw_scene(rng: random.Random, pair_share: float) -> Scene:
    everything = concepts()
    background = "white" if rng.random() < 0.5 else rng.choice(list(COLORS))
    if rng.random() < pair_share:
        return Scene(tuple(rng.sample(everything, 2)), background)
    size = rng.choice([None, None, None, None, "small", "large"])
    place = rng.choice([None, None, None, None, "left", "right", "center"])
    if size == "large" and place in ("left", "right"):
        place = None
    return Scene((rng.choice(everything),), background, size, place)


def caption(scene: Scene, rng: random.Random) -> str:
    """The scene in words, in one of the forms that people use."""
    things = [_thing(c, scene.size, rng) for c in scene.concepts]
    text = " and ".join(things)
    if scene.place:
        text += rng.choice([" ", ", "]) + rng.choice(PLACES[scene.place])
    if scene.background != "white" or rng.random() < 0.3:
        text += _background(scene.background, rng)
    return text


def _thing(concept: Concept, size: str | None, rng: random.Random) -> str:
    name = concept.name
    if concept.aliases and rng.random() < 0.35:
        name = rng.choice(concept.aliases)
    words = f"{rng.choice(SIZES[size])} {name}" if size else name
    if rng.random() < 0.35:
        return words
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _background(color: str, rng: random.Random) -> str:
    names = [color, *(alias for alias, base in COLOR_ALIASES.items() if base == color)]
    name = rng.choice(names)
    article = "an" if name[0] in "aeiou" else "a"
    return rng.choice([f", {name} background", f" on {article} {name} background", f" on {name} background"])
