"""OpenAI's edits over HTTP, by the real worker with the built-in model: what a mask keeps is kept to the bit."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import requests
from PIL import Image, ImageDraw

from tests.home import HANG_S, Home
from tests.http.again import free_port

SIDE = 128


def png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def start() -> Image.Image:
    """Noise: what is only nearly kept is seen."""
    pixels = np.random.default_rng(1).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def mask(clear: tuple[int, int, int, int] | None) -> Image.Image:
    """Opaque, but for the box that is `clear`."""
    made = Image.new("RGBA", (SIDE, SIDE), (0, 0, 0, 255))
    if clear:
        ImageDraw.Draw(made).rectangle(clear, fill=(0, 0, 0, 0))
    return made


@pytest.mark.timeout(1200)
def test_an_edit_keeps_the_rest_to_the_bit(pocket_home: Home) -> None:
    url = f"http://127.0.0.1:{(port := free_port())}/v1/images/edits"
    begun = pocket_home.craft("daemon", "start", f"--http=127.0.0.1:{port}")
    assert begun.returncode == 0, begun.stderr
    key = pocket_home.json("keys", "create", "--owner", "alice")["key"]

    def edit(clear: tuple[int, int, int, int] | None) -> np.ndarray:
        answer = requests.post(
            url,
            headers={"Authorization": f"Bearer {key}"},
            files={"image": ("a.png", png(start())), "mask": ("m.png", png(mask(clear)))},
            data={
                "prompt": "a green apple",
                "model": "pocket",
                "seed": "1",
                "num_inference_steps": "2",
                "mask_blur": "0",
            },
            timeout=HANG_S,
        )
        assert answer.status_code == 200, answer.text
        with Image.open(io.BytesIO(base64.b64decode(answer.json()["data"][0]["b64_json"]))) as opened:
            return np.asarray(opened.convert("RGB"), dtype=np.int16)

    before = np.asarray(start(), dtype=np.int16)
    assert (edit(None) == before).all()
    box = (32, 48, 79, 95)
    after = edit(box)
    anew = np.zeros((SIDE, SIDE), dtype=bool)
    anew[box[1] : box[3] + 1, box[0] : box[2] + 1] = True
    assert (after[~anew] == before[~anew]).all()
    assert np.abs(after[anew] - before[anew]).mean() > 1
