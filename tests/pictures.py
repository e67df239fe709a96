"""Small pictures to train on, each one different from the others."""

from __future__ import annotations

import io
import random
import struct

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


def deep(step: int = 1) -> bytes:
    """A grey picture with 16 bits, brighter from left to right: `step` of 255 in each column."""
    values = [min(65535, x * 257 * step) for _ in range(96) for x in range(96)]
    stream = io.BytesIO()
    Image.frombytes("I;16", (96, 96), struct.pack(f"<{len(values)}H", *values)).save(stream, "PNG")
    return stream.getvalue()
