"""A mask of what is drawn anew, as a user gives it."""

from __future__ import annotations

import json

import pytest

from tests.cli.test_pictures_in import file, place
from tests.home import Home

__all__ = ["place"]


def test_a_mask_that_shows_a_part(place: Home) -> None:
    args = ["-i", "it.png", "--mask", "mask.png", "--mask-padding", "8", "--mask-blur", "0", "--mask-grow", "-2"]
    told = place.json("generate", "x", *args, "--mask-invert", "-W", "32", "-H", "32")
    assert (told["width"], told["height"]) == (64, 48)
    shown = place.json("images", "show", told["image"])["provenance"]
    assert shown["start"]["strength"] == 1.0
    mask = shown["mask"]
    assert (mask["blur"], mask["grow"], mask["invert"], mask["padding"]) == (0, -2, True, 8)


def test_a_mask_of_another_shape_is_said_to_be_scaled(place: Home) -> None:
    done = place.craft("generate", "x", "-i", "it.png", "--mask", "wide.png", "-o", "scaled.png")
    assert (done.returncode, done.stdout) == (0, "scaled.png\n")
    assert "wide.png is 128x24, of another shape than the picture's 64x48: it is scaled" in done.stderr
    done = place.craft("generate", "x", "-i", "it.png", "--mask", "mask.png", "-o", "same.png")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_line_names_a_mask(place: Home) -> None:
    line = {"prompt": "b", "image": "it.png", "strength": 0.5, "mask": "mask.png", "mask_padding": 4}
    done = place.craft("generate", "--batch", "-", "-o", "line-masked.png", stdin=json.dumps(line))
    assert done.returncode == 0, done.stdout
    told = json.loads(done.stdout)
    assert (told["width"], told["height"]) == (64, 48)


@pytest.fixture
def lost(home: Home) -> Home:
    """A picture that was made from one that the daemon has no longer."""
    (home.work / "it.png").write_bytes(file())
    (home.work / "other.png").write_bytes(file((1, 2, 3)))
    (home.work / "mask.png").write_bytes(file((255, 255, 255)))
    args = ["-i", "it.png", "--mask", "mask.png", "--strength", "0.5", "--seed", "7"]
    assert home.craft("generate", "x", *args, "-o", "made.png").returncode == 0
    assert home.craft("images", "verify", "made.png").stdout == "identical\n"
    assert home.craft("images", "replay", "made.png", "-o", "again.png").returncode == 0
    assert home.craft("prune", "inputs", "--older-than", "0s", "--force").returncode == 0
    return home


def test_a_picture_made_again_asks_for_its_mask_too(lost: Home) -> None:
    with_image = ["-i", "it.png"]
    for args, code, told in (
        ([], 66, "it was made from the picture"),
        (["-i", "other.png"], 65, "--image other.png: is not what it was made from"),
        (with_image, 66, "send it with --mask PATH"),
    ):
        done = lost.craft("images", "verify", "made.png", *args)
        assert (done.returncode, done.stdout) == (code, "")
        assert told in done.stderr
    done = lost.craft("images", "verify", "made.png", *with_image, "--mask", "mask.png")
    assert (done.returncode, done.stdout) == (0, "identical\n"), done.stderr
    assert lost.craft("images", "replay", "made.png", "-o", "third.png").returncode == 0
