"""A mask keeps what is not drawn anew, by the real worker with the built-in model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.home import Home


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as opened:
        return np.asarray(opened.convert("RGB"), dtype=np.int16)


def distance(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one - other).mean())


@pytest.mark.timeout(1200)
def test_a_mask_keeps_the_rest_to_the_bit(pocket_home: Home) -> None:
    work = pocket_home.work

    def craft(*args: str) -> None:
        done = pocket_home.craft(*args)
        assert done.returncode == 0, done.stderr

    craft("generate", "a red apple on a white background", "--seed", "1", "-o", "apple.png")
    apple = pixels(work / "apple.png")
    size = apple.shape[:2]

    again = ("a green apple on a white background", "--seed", "2", "-i", "apple.png")
    for strength in ("0", "0.3", "0.9"):
        craft("generate", *again, "--strength", strength, "-o", f"{strength}.png")
    found = [distance(pixels(work / f"{strength}.png"), apple) for strength in ("0", "0.3", "0.9")]
    assert found[0] == 0  # strength 0 gives the picture back
    assert found[0] < found[1] < found[2]

    hole = np.zeros(size, dtype=np.uint8)
    hole[size[0] // 4 : size[0] // 2, size[1] // 4 : size[1] // 2] = 255
    Image.fromarray(hole).save(work / "hole.png")
    for padding in ((), ("--mask-padding", "16")):
        craft("generate", *again, "--mask", "hole.png", "--mask-blur", "0", *padding, "-o", "patched.png", "-f")
        patched = pixels(work / "patched.png")
        assert patched.shape == apple.shape
        assert (patched[hole == 0] == apple[hole == 0]).all()
        assert distance(patched[hole == 255], apple[hole == 255]) > 1
    done = pocket_home.craft("images", "verify", "patched.png")
    assert done.returncode == 0, done.stderr
