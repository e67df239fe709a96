"""Pictures that a model is shown, as a user gives them: in their order, in lines, again, and refused by their names."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.cli.test_pictures_in import file, middle
from tests.home import KLEIN, Home, write_model

RED, BLUE = (200, 0, 0), (0, 0, 200)
SIZE = ["-W", "64", "-H", "64", "--seed", "0"]


@pytest.fixture(scope="module")
def place() -> Iterator[Home]:
    """A daemon with `klein`, which is shown pictures, and `flat`, which is not."""
    home = Home()
    (home.work / "red.png").write_bytes(file(RED))
    (home.work / "blue.png").write_bytes(file(BLUE, (48, 64)))
    added = home.craft("models", "add", str(write_model(home.work / "klein", **KLEIN)))
    assert added.returncode == 0, added.stderr
    yield home
    home.remove()


def draw(home: Home, *args: str, stdin: bytes | None = None) -> Path:
    done = home.craft("generate", "x", "-m", "klein", *SIZE, *args, "-o", "out.png", "-f", stdin=stdin)
    assert done.returncode == 0, done.stderr
    return home.work / "out.png"


def told(path: Path) -> dict[str, Any]:
    with Image.open(path) as opened:
        found: dict[str, Any] = json.loads(opened.text["craft"])  # type: ignore[attr-defined]
    return found


def test_they_are_shown_in_their_order(place: Home) -> None:
    """The last counts most to the fake worker."""
    assert middle(draw(place, "--ref", "red.png", "--ref", "blue.png")) == (50, 0, 100)
    assert middle(draw(place, "--ref", "blue.png", "--ref", "red.png")) == (100, 0, 50)
    assert middle(draw(place, "--ref", "-", stdin=file(BLUE))) == (0, 0, 100)
    assert middle(draw(place, "--ref-image", "red.png", "--ref=red.png")) == (150, 0, 0)


def test_one_of_crafts_own_is_shown_by_its_id(place: Home) -> None:
    first = place.json("generate", "x", "-m", "klein", *SIZE, "--ref", "red.png")["image"]
    assert middle(draw(place, "--ref", first)) == (50, 0, 0)


def test_beside_a_start_and_a_mask(place: Home) -> None:
    (place.work / "white.png").write_bytes(file((255, 255, 255)))
    made = told(draw(place, "-i", "red.png", "--mask", "white.png", "--ref", "blue.png", "--ref", "red.png"))
    assert [one["sha256"] for one in made["references"]][1] == made["start"]["sha256"]
    assert made["mask"]["blur"] == 4.0


def test_a_plan_says_what_is_shown_and_what_a_mask_does(place: Home) -> None:
    (place.work / "white.png").write_bytes(file((255, 255, 255)))
    args = ["-m", "klein", "--ref", "red.png", "--ref", "blue.png", "-i", "red.png", "--mask", "white.png"]
    args += ["--mask-grow", "-2", "--mask-padding", "8", "--mask-invert"]
    said = place.craft("generate", "x", *args, "--plan").stdout
    assert "2 pictures, in their order" in said
    how = "what is black is drawn anew, shrunk by 2 pixels, blurred over 4 pixels"
    assert f"{how}, in the part around it and 8 pixels more" in said
    plain = place.craft("generate", "x", "-i", "red.png", "--mask", "white.png", "--mask-blur", "0", "--plan").stdout
    assert "what is white is drawn anew, not blurred, in the whole picture" in plain and "shown" not in plain


def test_a_plan_follows_the_shape_of_the_first(place: Home) -> None:
    known = place.json("generate", "x", "-m", "klein", "--ref", "blue.png", "--ref", "red.png", "--plan")
    assert abs(known["width"] / known["height"] - 48 / 64) < 0.02
    assert len(known["references"]) == 2


def test_lines_name_them(place: Home) -> None:
    lines = [
        {"prompt": "a", "refs": ["red.png", "blue.png"]},
        {"prompt": "b"},  # as the options have it
        {"prompt": "c", "references": []},
    ]
    args = ["-m", "klein", *SIZE, "--ref", "blue.png", "--batch", "-", "-o", "line-{n}.png", "-f"]
    done = place.craft("generate", *args, stdin="\n".join(map(json.dumps, lines)))
    assert done.returncode == 0, done.stdout
    assert middle(place.work / "line-1.png") == (50, 0, 100)
    assert middle(place.work / "line-2.png") == (0, 0, 100)
    assert "references" not in told(place.work / "line-3.png")


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["--ref", "red.png"], 65, "--ref: a picture that is shown to it means nothing to the model flat"),
        (["-m", "klein", *["--ref", "red.png"] * 17], 65, "--ref: are 17; the limit is 16"),
        (["-m", "klein", "--ref", "nowhere.png"], 66, "nowhere.png"),
        (["-m", "klein", "--ref", "-", "-i", "-"], 2, "--image - does not go with --ref -"),
        (["-m", "klein", "--ref", "-", "--ref", "-"], 2, "--ref - does not go with --ref -"),
    ],
)
def test_what_is_refused(place: Home, args: list[str], code: int, says: str) -> None:
    done = place.craft("generate", "x", *args)
    assert (done.returncode, done.stdout) == (code, "") and says in done.stderr


def test_a_picture_is_made_again_from_them(place: Home) -> None:
    """They are asked for where the daemon has them no longer: all, in their order."""
    made = draw(place, "--ref", "red.png", "--ref", "blue.png").rename(place.work / "made.png")
    assert place.craft("images", "verify", made.name).stdout == "identical\n"
    assert place.craft("prune", "inputs", "--older-than", "0s", "--force").returncode == 0
    both = ["--ref", "red.png", "--ref", "blue.png"]
    for args, code, says in (
        ([], 66, "send it with --ref PATH"),
        (["--ref", "red.png"], 2, "--ref: its model was shown 2 pictures, not 1"),
        (both[:2] * 3, 2, "not 3"),
        (["--ref", "blue.png", "--ref", "red.png"], 65, "--ref blue.png: is not what it was made from"),
        (both, 0, ""),
        ([], 0, ""),
    ):
        done = place.craft("images", "verify", made.name, *args)
        assert done.returncode == code and says in done.stderr, done.stderr
    again = place.craft("images", "replay", made.name, "-o", "again.png")
    assert again.returncode == 0, again.stderr
    assert middle(place.work / "again.png") == middle(made)
