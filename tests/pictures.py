"""Small pictures to train on, each one different from the others."""

from __future__ import annotations

import io
import random

from PIL import Image


def picture(number: int = 0, width: int = 96, height: int = 96, kind: str = "PNG", **more: object) -> bytes:
    """A file: coloured noise, so that no two are alike."""
    made = random.Random(number)
    small = Image.frombytes("RGB", (8, 8), made.randbytes(8 * 8 * 3))
    stream = io.BytesIO()
    small.resize((width, height), Image.Resampling.NEAREST).save(stream, kind, **more)
    return stream.getvalue()


def pictures(count: int = 4, **settings: object) -> dict[str, bytes]:
    """By file name."""
    return {f"{number}.png": picture(number, **settings) for number in range(count)}  # type: ignore[arg-type]
