"""Pictures that are sent, good ones and hostile ones."""

from __future__ import annotations

import base64
import hashlib
import io
import struct
import zlib
from typing import Any

from craft_protos import jobs_pb2
from PIL import Image

from tests.http.shim import Shim

RED, GREEN, CLEAR, OPAQUE = (200, 10, 10), (10, 200, 10), (0, 0, 0, 0), (0, 0, 0, 255)


def picture(size: tuple[int, int] = (64, 64), colour: Any = RED, kind: str = "PNG", **more: Any) -> bytes:
    stream = io.BytesIO()
    Image.new("RGBA" if len(colour) == 4 else "RGB", size, colour).save(stream, kind, **more)
    return stream.getvalue()


def half_clear(size: tuple[int, int] = (64, 64), alpha: int = 0) -> bytes:
    """An opaque picture whose left half is transparent, or as opaque as that."""
    made = Image.new("RGBA", size, OPAQUE)
    made.paste((0, 0, 0, alpha), (0, 0, size[0] // 2, size[1]))
    stream = io.BytesIO()
    made.save(stream, "PNG")
    return stream.getvalue()


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def sha256_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def kept(shim: Shim, sha256: str) -> Image.Image:
    """One that the daemon has."""
    with Image.open(shim.home.paths.inputs_dir / sha256) as opened:
        opened.load()
        return opened


def spec_of(shim: Shim) -> jobs_pb2.GenerateSpec:
    return shim.newest().generate


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _bomb() -> bytes:
    """60,000 pixels a side, in a few bytes."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 1, 0, 0, 0, 0)
    rows = zlib.compress(b"\0" * 7501 * 100)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", rows) + _chunk(b"IEND", b"")


def _animation() -> bytes:
    stream = io.BytesIO()
    frames = [Image.new("RGB", (16, 16), colour) for colour in (RED, GREEN)]
    frames[0].save(stream, "PNG", save_all=True, append_images=frames[1:], duration=100)
    return stream.getvalue()


HOSTILE = {
    "a bomb": _bomb(),
    "cut short": picture((256, 256), kind="JPEG")[:-400],
    "an animation": _animation(),
    "an SVG": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><script>alert(1)</script></svg>',
    "a GIF": picture(kind="GIF"),
    "a text that says it is a PNG": b"\x89PNG\r\n\x1a\nno, it is not",
}
