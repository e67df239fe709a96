"""What is drawn stays within the outline that is given, by the real worker, the built-in model and its ControlNet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from tests.home import Home


def sketch(path: Path, box: tuple[int, int, int, int]) -> None:
    """A circle as somebody draws it: black on white."""
    picture = Image.new("RGB", (256, 256), "white")
    ImageDraw.Draw(picture).ellipse(box, outline="black", width=3)
    picture.save(path)


def reddish(path: Path) -> np.ndarray:
    with Image.open(path) as opened:
        pixels = np.asarray(opened.convert("RGB"), dtype=np.int16)
    return pixels[..., 0] - pixels[..., 1:].max(axis=2) > 60


def middle_of(where: np.ndarray) -> float:
    """Of what is there, from the left, in pixels."""
    assert where.sum() > 1000
    return float(np.nonzero(where)[1].mean())


@pytest.mark.timeout(1200)
def test_a_thing_is_drawn_where_the_sketch_has_it(pocket_home: Home) -> None:
    work = pocket_home.work

    def craft(*args: str) -> None:
        done = pocket_home.craft(*args)
        assert done.returncode == 0, done.stderr

    apple = ("generate", "a red apple", "--seed", "3", "-f")  # pocket-edges is the only one that reads lines
    for side, box in (("left", (24, 80, 120, 176)), ("right", (136, 80, 232, 176))):
        sketch(work / f"{side}.png", box)
        craft(*apple, "--control", f"scribble={side}.png", "-o", f"{side}-apple.png")
    places = [middle_of(reddish(work / f"{side}-apple.png")) for side in ("left", "right")]
    assert places[0] < 128 - 20 and places[1] > 128 + 20, places
    craft("images", "verify", "left-apple.png")
