"""README's pictures that begin from pictures are what its lines draw."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from docs.tutorial import begun
from tests.home import Home

NEAR = 5.0  # of 255, on average: what WebP and another processor's rounding may change


def distance(one: Image.Image, other: Image.Image) -> float:
    pixels = [np.asarray(picture.convert("RGB"), dtype=np.int16) for picture in (one, other)]
    return float(np.abs(pixels[0] - pixels[1]).mean())


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_lines_draw_what_is_shown(pocket_home: Home) -> None:
    begun.write_given(pocket_home.work)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = pocket_home.run(["bash", "-euo", "pipefail", "-c", begun.lines()], env={"PATH": path})
    assert done.returncode == 0, done.stderr
    for name in begun.ROWS:
        with Image.open(begun.shown(name)) as shown:
            assert distance(begun.drawn(name, pocket_home.work), shown) < NEAR
