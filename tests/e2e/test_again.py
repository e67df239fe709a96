"""A picture can be made again, and checked."""

from __future__ import annotations

import shutil

import pytest
from PIL import Image, ImageChops

from tests.cli.home import Home


def _differ(first: Image.Image, second: Image.Image) -> int:
    extrema = ImageChops.difference(first.convert("RGB"), second.convert("RGB")).getextrema()
    return max(high for _, high in extrema)  # type: ignore[misc]


def test_the_third_of_four_made_alone_is_the_same(home: Home) -> None:
    four = home.craft("generate", "a cat", "-n", "4", "--seed", "10", "-s", "4", "-o", "{index}.png")
    assert four.returncode == 0, four.stderr
    alone = home.craft("generate", "a cat", "--seed", "12", "-s", "4", "-o", "alone.png")
    assert alone.returncode == 0, alone.stderr
    with Image.open(home.work / "2.png") as third, Image.open(home.work / "alone.png") as again:
        assert _differ(third, again) <= 1


@pytest.mark.parametrize("ending", ["png", "jpg", "webp"])
def test_verify_says_identical_against_an_empty_database(home: Home, ending: str) -> None:
    made = home.craft("generate", "a dog", "-s", "3", "--deterministic", "-o", f"dog.{ending}")
    assert made.returncode == 0, made.stderr
    assert home.craft("daemon", "stop").returncode == 0
    home.paths.database.unlink()
    shutil.rmtree(home.paths.images_dir)
    verified = home.craft("images", "verify", f"dog.{ending}")
    assert verified.returncode == 0, verified.stderr
    assert "identical" in verified.stdout + verified.stderr


def test_verify_says_different_when_a_pixel_was_painted_over(home: Home) -> None:
    made = home.craft("generate", "a dog", "-s", "3", "-o", "dog.png")
    assert made.returncode == 0, made.stderr
    path = home.work / "dog.png"
    with Image.open(path) as image:
        info = dict(image.info)
        changed = ImageChops.invert(image.convert("RGB"))
    from PIL.PngImagePlugin import PngInfo

    kept = PngInfo()
    kept.add_text("craft", info["craft"])
    changed.save(path, pnginfo=kept)
    assert home.craft("images", "verify", "dog.png").returncode == 1
