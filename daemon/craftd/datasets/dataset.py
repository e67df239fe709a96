"""A dataset: pictures and their captions, checked, to train on."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

from craft_protos.train import Picture

FEWEST = 3  # pictures; fewer teach one picture, not a thing or a style
SMALLEST_SIDE = 64  # pixels
MOST_SLENDER = 8  # times as long as wide
MOST_REPEATS = 1000  # of a picture
MOST_SHOWN = 100_000  # pictures in an epoch


@dataclass(frozen=True)
class BadPicture:
    file_name: str
    why: str


@dataclass(frozen=True)
class Dataset:
    id: str
    owner: str
    pictures: tuple[Picture, ...]
    left_out: tuple[BadPicture, ...]
    create_time: float

    @property
    def uncaptioned(self) -> int:
        return sum(not picture.caption for picture in self.pictures)


@dataclass(frozen=True)
class Incoming:
    """A picture on its way in."""

    file_name: str
    size_bytes: int
    caption: str
    repeats: int = 1
    mask_of: str = ""  # it is the mask of the picture of that name


@dataclass(frozen=True)
class Upload:
    """What a sender says first, and then the pictures: each followed by its bytes."""

    owner: str
    skip_bad: bool
    count: int
    parts: AsyncIterator[Incoming | bytes]
    masks: int = 0

    @property
    def files(self) -> int:
        return self.count + self.masks


@dataclass(frozen=True)
class Progress:
    pictures_done: int
    pictures_total: int


def in_order(pictures: Iterable[Picture]) -> list[Picture]:
    """As they are trained on: equal contents in one order, however they were sent."""
    return sorted(pictures, key=lambda one: (one.sha256, one.caption, one.repeats, one.mask_sha256))


def id_of(pictures: Iterable[Picture]) -> str:
    """Of the contents alone: equal pictures with equal captions are the same dataset."""
    digest = hashlib.sha256()
    for line in sorted(map(_line, pictures)):
        digest.update(line.encode())
    return digest.hexdigest()


def _line(one: Picture) -> str:
    """As long as there are neither repeats nor masks it is what it was before there were any."""
    more = f" {one.repeats} {one.mask_sha256}" if one.repeats != 1 or one.mask_sha256 else ""
    return f"{one.sha256} {hashlib.sha256(one.caption.encode()).hexdigest()}{more}\n"
