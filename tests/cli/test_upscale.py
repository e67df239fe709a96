"""craft upscale, --upscale and --hires: files in and out, plans, pictures made again, refusals."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.home import CRAFT, Home
from tests.pictures import picture


@pytest.fixture(scope="module")
def place() -> Iterator[Home]:
    """A daemon for all, and pictures in the folder that `craft` is called in."""
    home = Home()
    for name in ("a.png", "b.png"):
        (home.work / name).write_bytes(picture(1, 48, 32))
    yield home
    home.remove()


def size(path: Path | io.BytesIO) -> tuple[int, int]:
    with Image.open(path) as opened:
        return opened.size


def test_several_go_into_a_folder(place: Home) -> None:
    asked = ("upscale", "a.png", "b.png", "--scale", "2", "--upscaler", "lanczos", "-o", "large/")
    done = place.craft(*asked)
    assert (done.returncode, done.stdout) == (0, "large/a-upscaled.png\nlarge/b-upscaled.png\n"), done.stderr
    assert size(place.work / "large" / "a-upscaled.png") == (96, 64)
    taken = place.craft(*asked)
    assert taken.returncode == 73 and "--force" in taken.stderr
    assert place.craft(*asked, "--force").returncode == 0


def test_one_bad_file_leaves_the_others(place: Home) -> None:
    (place.work / "bad.png").write_text("no picture")
    asked = ("--upscaler", "lanczos", "--scale", "2", "-o", "rest/")
    done = place.craft("upscale", "bad.png", "none.png", "a.png", *asked)
    assert done.stdout == "rest/a-upscaled.png\n", done.stderr
    assert done.returncode == 65 and "bad.png" in done.stderr and "none.png" in done.stderr


def test_one_goes_through_pipes(place: Home) -> None:
    data = (place.work / "a.png").read_bytes()
    done = place.run([*CRAFT, "upscale", "-", "--upscaler", "lanczos", "-o", "-"], stdin=data)
    assert done.returncode == 0 and size(io.BytesIO(done.stdout)) == (96, 64)


def test_one_of_craft_s_own_is_enlarged_by_its_id(place: Home) -> None:
    made = json.loads(place.craft("generate", "a red apple", "--json", "-o", "own.png").stdout)
    told = place.craft("upscale", made["image"], "--upscaler", "lanczos", "--json", "-o", "own-large.webp")
    assert json.loads(told.stdout)["width"] == 2 * made["width"]
    assert size(place.work / "own-large.webp")[0] == 2 * made["width"]


def test_what_is_drawn_is_enlarged(place: Home) -> None:
    done = place.craft("generate", "a red apple", "--seed", "3", "--hires", "--upscale", "1.5", "-o", "drawn.png")
    assert done.returncode == 0, done.stderr
    plan = json.loads(place.craft("generate", "a", "--hires", "--upscale", "1.5", "--plan", "--json").stdout)
    side = plan["width"]
    assert size(place.work / "drawn.png") == (3 * side, 3 * side)
    assert (plan["hires"]["width"], plan["result_width"], plan["hires"]["strength"]) == (2 * side, 3 * side, 0.5)
    table = place.craft("generate", "a", "--hires", "1.5", "--upscale", "2", "--upscaler", "lanczos", "--plan").stdout
    assert f"{3 * side}x{3 * side}: 2 times, by lanczos" in table and "strength 0.5" in table


def test_a_batch_s_lines_say_it(place: Home) -> None:
    lines = '{"prompt": "a", "upscale": {"scale": 2, "model": "lanczos"}}\n{"prompt": "b"}\n'
    done = place.craft("generate", "--batch", "-", "--upscale", "3", "--upscaler", "lanczos", stdin=lines)
    widths = sorted(json.loads(line)["width"] for line in done.stdout.splitlines())
    assert done.returncode == 0 and widths[1] == 1.5 * widths[0]


def test_a_picture_that_was_enlarged_is_made_again(place: Home) -> None:
    assert place.craft("upscale", "a.png", "--upscaler", "lanczos", "-o", "made.png").returncode == 0
    assert place.craft("images", "replay", "made.png", "-o", "again.png").returncode == 0
    assert size(place.work / "again.png") == (96, 64)
    assert place.craft("images", "verify", "made.png").stdout == "identical\n"


@pytest.mark.parametrize(
    ("args", "code", "told"),
    [
        (("upscale", "a.png", "b.png", "-o", "one.png"), 2, "give -o a folder"),
        (("upscale", "a.png", "--scale", "17", "-o", "x.png"), 65, "--scale"),
        (("upscale", "a.png", "--upscaler", "flat", "-o", "x.png"), 65, "no upscaler"),
        (("upscale", "nope.png"), 66, "nope.png"),
        (("generate", "a", "--upscaler", "lanczos"), 2, "--upscale"),
        (("generate", "a", "--hires-steps", "3"), 2, "--hires"),
        (("generate", "a", "-W", "512", "--upscale", "16", "--upscaler", "lanczos"), 65, "--upscale: makes"),
        (("generate", "a", "--hires", "-i", "a.png"), 2, "--hires"),
        (("generate", "a", "-m", "lanczos"), 65, "enlarges pictures"),
        (("models", "add", "a.png", "--name", "lanczos"), 65, ""),
    ],
)
def test_refusals(place: Home, args: tuple[str, ...], code: int, told: str) -> None:
    done = place.craft(*args)
    assert (done.returncode, told in done.stderr) == (code, True), done.stderr
    assert len(done.stderr.splitlines()) == 2, "what is wrong, and what to do"
