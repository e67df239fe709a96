"""Every size that a face offers or names, drawn with the built-in model by the real worker."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator

import pytest
import requests
from PIL import Image

from tests import lora_files
from tests.e2e.conftest import REAL
from tests.home import Home

ENOUGH_S = 500  # to draw the largest
OPENAI = ("256x256", "512x512", "1024x1024", "1536x1024", "1024x1536", "1792x1024", "1024x1792")
SHAPES = {
    "square_hd": (256, 256),
    "square": (128, 128),
    "portrait_4_3": (224, 288),
    "portrait_16_9": (192, 336),
    "landscape_4_3": (288, 224),
    "landscape_16_9": (336, 192),
}


Served = tuple[Home, str, dict[str, str]]


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    """A newcomer's daemon that serves HTTP: its address, and headers with a key."""
    home = Home("", **REAL, CRAFT_HTTP_ENABLED="true", CRAFT_HTTP_LISTEN="127.0.0.1:0")
    key = home.json("keys", "create", "--owner", "me")["key"]
    name = "lora_unet_down_blocks_2_attentions_0_transformer_blocks_0_attn2_to_k"
    lora_files.write(home.work / "it.safetensors", lora_files.layer(name, out=192))
    assert home.craft("lora", "add", "it.safetensors").returncode == 0
    yield home, home.json("daemon", "status")["http"], {"X-API-Key": key}
    home.remove()


def test_the_pages_list(served: Served) -> None:
    _, url, headers = served
    choices = requests.get(f"{url}/choices", headers=headers, timeout=ENOUGH_S).json()
    (pocket,) = choices["models"]
    assert (pocket["granularity"], pocket["largest_side"]) == (16, 4096)
    assert {one["shape"]: (one["width"], one["height"]) for one in pocket["sizes"]} == SHAPES
    for one in pocket["sizes"]:
        body = {"prompt": "a red apple", "steps": 1, "width": one["width"], "height": one["height"]}
        job = requests.post(f"{url}/jobs", headers=headers, json=body, timeout=ENOUGH_S).json()
        events = requests.get(f"{url}/jobs/{job['id']}/events", headers=headers, timeout=ENOUGH_S).text
        assert '"state":"SUCCEEDED"' in events.replace(": ", ":"), events[-500:]


@pytest.mark.parametrize(("shape", "size"), SHAPES.items())
def test_the_lora_apis_names(served: Served, shape: str, size: tuple[int, int]) -> None:
    _, url, headers = served
    body = {"prompt": "a red apple", "lora_id": "it", "response_format": "base64", "image_size": shape}
    answer = requests.post(f"{url}/image/create/lora", headers=headers, json=body, timeout=ENOUGH_S)
    assert answer.status_code == 200, answer.text
    assert _size(answer.json()["base64"]) == size
    assert answer.headers["Craft-Image-Size"] == f"{size[0]}x{size[1]}"


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("size", ["auto", *OPENAI])
def test_openais_sizes(served: Served, size: str) -> None:
    _, url, headers = served
    body = {"prompt": "a red apple", "size": size, "num_inference_steps": 1}
    answer = requests.post(f"{url}/v1/images/generations", headers=headers, json=body, timeout=ENOUGH_S)
    assert answer.status_code == 200, answer.text
    width, height = _size(answer.json()["data"][0]["b64_json"])
    assert f"{width}x{height}" == answer.json()["size"] == ("256x256" if size == "auto" else size)


def test_a_size_that_pocket_cannot_draw(served: Served) -> None:
    home, url, headers = served
    wrong = {"prompt": "a red apple", "size": "250x500"}
    refused = requests.post(f"{url}/v1/images/generations", headers=headers, json=wrong, timeout=ENOUGH_S)
    assert refused.status_code == 422
    assert "size: the width must be a multiple of 16" in refused.text and "take 256x496" in refused.text
    answer = home.craft("generate", "a red apple", "-W", "250", "--json")
    error = json.loads(answer.stderr)["error"]
    assert answer.returncode == 65 and error["hint"] == "take 256x256"
    assert home.craft("generate", "a red apple", "-W", "248", "--plan").returncode == 65


def test_what_automatic1111_and_visioncraft_leave_out(served: Served) -> None:
    _, url, headers = served
    body = {"prompt": "a red apple", "steps": 1}
    drawn = requests.post(f"{url}/sdapi/v1/txt2img", headers=headers, json=body, timeout=ENOUGH_S).json()
    assert _size(drawn["images"][0]) == (256, 256)
    (drawn,) = requests.post(
        f"{url}/generate", headers=headers, json={**body, "model": "pocket"}, timeout=ENOUGH_S
    ).json()
    assert _size(drawn) == (256, 256)


def test_the_command(served: Served) -> None:
    home, _, _ = served
    for width, height in SHAPES.values():
        sides = ["-W", str(width), "-H", str(height), "-s", "1"]
        assert home.craft("generate", "a red apple", "--plan", *sides).returncode == 0
        drawn = home.craft("generate", "a red apple", *sides, "-o", f"{width}x{height}.png")
        assert drawn.returncode == 0, drawn.stderr


def _size(data: str) -> tuple[int, int]:
    with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
        return picture.size
