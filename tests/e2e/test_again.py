"""A picture can be made again, and checked."""

from __future__ import annotations

import shutil

from PIL import Image, ImageChops

from tests.home import Home


def _differ(first: Image.Image, second: Image.Image) -> int:
    extrema = ImageChops.difference(first.convert("RGB"), second.convert("RGB")).getextrema()
    return max(high for _, high in extrema)  # type: ignore[misc]


def test_the_third_of_four_made_alone_is_the_same(shared_home: Home) -> None:
    four = shared_home.craft("generate", "a cat", "-n", "4", "--seed", "10", "-s", "4", "-o", "{index}.png")
    assert four.returncode == 0, four.stderr
    alone = shared_home.craft("generate", "a cat", "--seed", "12", "-s", "4", "-o", "alone.png")
    assert alone.returncode == 0, alone.stderr
    with Image.open(shared_home.work / "2.png") as third, Image.open(shared_home.work / "alone.png") as again:
        assert _differ(third, again) <= 1


def test_verify_says_identical_against_an_empty_database(home: Home) -> None:
    files = ["dog.png", "dog.jpg", "dog.webp"]
    for file in files:
        made = home.craft("generate", "a dog", "-s", "3", "--deterministic", "-o", file)
        assert made.returncode == 0, made.stderr
    assert home.craft("daemon", "stop").returncode == 0
    home.paths.database.unlink()
    shutil.rmtree(home.paths.images_dir)
    for file in files:
        verified = home.craft("images", "verify", file)
        assert verified.returncode == 0, verified.stderr
        assert "identical" in verified.stdout + verified.stderr


def test_verify_says_different_when_a_pixel_was_painted_over(shared_home: Home) -> None:
    made = shared_home.craft("generate", "a dog", "-s", "3", "-o", "dog.png")
    assert made.returncode == 0, made.stderr
    path = shared_home.work / "dog.png"
    with Image.open(path) as image:
        info = dict(image.info)
        changed = ImageChops.invert(image.convert("RGB"))
    from PIL.PngImagePlugin import PngInfo

    kept = PngInfo()
    kept.add_text("craft", info["craft"])
    changed.save(path, pnginfo=kept)
    assert shared_home.craft("images", "verify", "dog.png").returncode == 1
