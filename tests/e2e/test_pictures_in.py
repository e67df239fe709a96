"""Pictures that begin from pictures, drawn by the real worker with the built-in model."""

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
def test_a_picture_begins_from_another(pocket_home: Home) -> None:
    work = pocket_home.work

    def craft(*args: str) -> None:
        done = pocket_home.craft(*args)
        assert done.returncode == 0, done.stderr

    craft("generate", "a red apple on a white background", "--seed", "1", "-o", "apple.png")
    apple = pixels(work / "apple.png")
    again = ("a green apple on a white background", "--seed", "2", "-i", "apple.png")
    for strength in ("0", "0.3", "0.9"):
        craft("generate", *again, "--strength", strength, "-o", f"{strength}.png")
    found = [distance(pixels(work / f"{strength}.png"), apple) for strength in ("0", "0.3", "0.9")]
    assert found[0] == 0  # strength 0 gives the picture back
    assert found[0] < found[1] < found[2]
    done = pocket_home.craft("images", "verify", "0.9.png")
    assert done.returncode == 0, done.stderr
