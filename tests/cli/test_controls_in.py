"""Control pictures as a user gives them: with their kind and scale, in batches, planned, and made again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from craft_cli.generate import controls
from craft_cli.generate.controls import Named
from craft_protos.reasons import CraftError
from PIL import Image

from tests.cli.test_pictures_in import file
from tests.daemon.safetensors import write_checkpoint
from tests.home import SD1, Home, write_model


@pytest.fixture(scope="module")
def place() -> Iterator[Home]:
    """A daemon with a Stable Diffusion 1 and two control models for it."""
    home = Home()
    for name in ("room.png", "other.png"):
        (home.work / name).write_bytes(file((200, 10, 10) if name == "room.png" else (10, 200, 10)))
    write_model(home.work / "sd", **SD1)
    for name in ("my-canny", "my-depth"):
        write_checkpoint(home.work / f"{name}.safetensors", "control-sd1", metadata={"of": name})
    for path in (home.work / "sd", *home.work.glob("*.safetensors")):
        added = home.craft("models", "add", str(path))
        assert added.returncode == 0, added.stderr
    yield home
    home.remove()


def drawn_with(path: Path) -> list[dict[str, Any]]:
    with Image.open(path) as opened:
        told: list[dict[str, Any]] = json.loads(opened.text["craft"])["controls"]  # type: ignore[attr-defined]
    return told


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("canny=room.png", Named("canny", "room.png")),
        ("Canny=room.png:0.8", Named("canny", "room.png", 0.8)),
        ("none=a:b.png", Named("none", "a:b.png")),
        ("none=C:/x.png:1", Named("none", "C:/x.png", 1.0)),
        ("none=a=b.png", Named("none", "a=b.png")),
    ],
)
def test_what_an_option_means(text: str, named: Named) -> None:
    assert controls.parse(text) == named


@pytest.mark.parametrize("text", ["room.png", "canny=", "canny=room.png:11", "canny=:0.5", "canny=room.png:-1"])
def test_what_an_option_cannot_mean(text: str) -> None:
    with pytest.raises(CraftError, match="--control"):
        controls.parse(text)


@pytest.mark.parametrize(
    ("text", "shares"), [("0..0.8", (0.0, 0.8)), ("0.2..", (0.2, None)), ("..0.5", (None, 0.5)), (None, (None, None))]
)
def test_shares_of_the_steps(text: str | None, shares: tuple[float | None, float | None]) -> None:
    assert controls.steps(text) == shares


@pytest.mark.parametrize("text", ["0.8", "0..8", "a..b", "0..0.5..1"])
def test_no_shares_of_the_steps(text: str) -> None:
    with pytest.raises(CraftError, match="--control-steps"):
        controls.steps(text)


def test_drawn_planned_and_made_again(place: Home) -> None:
    asked = ("generate", "a room", "-m", "sd", "--control", "canny=room.png:0.8", "--control", "none=other.png")
    asked += ("--control-model", "my-canny", "--control-model", "my-depth", "--control-steps", "0..0.6")
    planned = place.craft(*asked, "--plan").stdout
    assert "canny by my-canny, scale 0.8, from 0 to 0.6 of the steps" in planned and "none by my-depth" in planned
    drawn = place.craft(*asked, "-o", "it.png")
    assert drawn.returncode == 0, drawn.stderr
    one, other = drawn_with(place.work / "it.png")
    assert (one["kind"], one["scale"], one["end"], other["kind"], other["scale"]) == ("canny", 0.8, 0.6, "none", 1.0)
    assert len(one["model_sha256"]) == 64 and one["model_sha256"] != other["model_sha256"]
    again = place.craft("images", "verify", "it.png")
    assert again.returncode == 0, again.stderr
    replay = ("images", "replay", "it.png", "--control")
    given = place.craft(*replay, "canny=room.png", "--control", "x=other.png", "-o", "b.png")
    assert given.returncode == 0, given.stderr
    assert drawn_with(place.work / "b.png") == [one, other]
    swapped = place.craft(*replay, "a=other.png", "--control", "b=room.png", "-o", "c.png")
    assert swapped.returncode == 65 and "is not what it was made from" in swapped.stderr


def test_lines_of_a_batch(place: Home) -> None:
    told_so = {"control": ["none=room.png:0.5"], "control_model": ["my-depth"], "control_steps": "0.1..0.9"}
    lines = [{"prompt": "a room", **told_so}, {"prompt": "a room"}]
    (place.work / "lines").write_text("\n".join(map(json.dumps, lines)))
    made = place.lines("generate", "--batch", "lines", "-m", "sd", "--control", "canny=other.png")
    told = [drawn_with(place.work / one["path"]) for one in made]
    assert [(one["kind"], one["model"], one["scale"]) for (one,) in told] == [
        ("none", "my-depth", 0.5),
        ("canny", "my-canny", 1.0),
    ]
    assert (told[0][0]["start"], told[0][0]["end"]) == (0.1, 0.9)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--control-model", "my-canny"), "does nothing without --control"),
        (("--control-steps", "0..1"), "does nothing without --control"),
        (("--control", "canny=gone.png"), "gone.png"),
        (("--control", "depth=room.png"), "send a ready depth map, as depth-map"),
        (("--control", "none=room.png"), "several are for sd: my-canny, my-depth"),
        (("--control", "canny=room.png", "--control-model", "sd"), "no control model here"),
        (("--control", "canny=-", "--image", "-"), "stdin is read once"),
        (("--control", "canny=room.png", *("--control-model", "a") * 2), "one for each in their order"),
    ],
)
def test_what_is_refused(place: Home, args: tuple[str, ...], words: str) -> None:
    refused = place.craft("generate", "a room", "-m", "sd", *args, "-o", "never.png")
    assert refused.returncode and words in refused.stderr, refused.stderr
    assert not (place.work / "never.png").exists()
