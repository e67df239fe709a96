"""VisionCraft's later contract, through its package from the index, whose requests and expectations are its own."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
from collections.abc import Iterator

import pytest
from PIL import Image

from tests.home import HANG_S
from tests.http.shim import LORA, Keys, Shim, give_lora, serving, told

_PROGRAM = """
import asyncio, json, sys
from VisionCraftAPI import VisionCraftClient

class Client(VisionCraftClient):
    API_HOST = sys.argv[1]

async def call():
    try:
        made = await getattr(Client(sys.argv[2]), sys.argv[3])(**json.loads(sys.argv[4]))
        print(json.dumps({"made": made}))
    except Exception as exc:
        print(json.dumps({"raised": type(exc).__name__, "said": str(exc)}))

asyncio.run(call())
"""


@pytest.fixture(scope="module")
def open_shim() -> Iterator[Shim]:
    with serving(CRAFT_HTTP_OPEN_LISTS="true") as one:
        give_lora(one)
        yield one


def sdk(shim: Shim, key: str, method: str, **arguments: object) -> dict[str, object]:
    command = [sys.executable, "-c", _PROGRAM, shim.url, key, method, json.dumps(arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANG_S, check=True)
    told: dict[str, object] = json.loads(done.stdout)
    return told


_WISH = {"prompt": "a red apple", "sampler": "Euler", "width": 64, "height": 64, "steps": 2}


@pytest.mark.parametrize("method", ["generate_image", "generate_xl_image"])
def test_it_draws(shim: Shim, keys: Keys, method: str) -> None:
    answer = sdk(shim, keys.user, method, model="flat", image_count=2, loras={LORA: 0.5}, **_WISH)
    urls = answer["made"]
    assert isinstance(urls, list) and len(set(urls)) == 2
    for url in urls:
        picture = shim.session.get(url, timeout=HANG_S)  # without a key
        assert Image.open(io.BytesIO(picture.content)).size == (64, 64)
    assert [(use.name, use.weight) for use in shim.newest().generate.loras] == [(LORA, 0.5)]


def test_its_lists_need_no_key_where_they_are_open(open_shim: Shim) -> None:
    """The package sends none."""
    asked = {name: sdk(open_shim, "", name) for name in ("get_models", "get_samplers", "get_loras")}
    assert asked["get_models"] == {"made": ["pocket", "flat"]} and asked["get_loras"] == {"made": [LORA]}
    assert "Euler a" in asked["get_samplers"]["made"]  # type: ignore[operator]
    assert sdk(open_shim, "", "get_xl_models") == sdk(open_shim, "", "get_xl_loras") == {"made": []}
    assert sdk(open_shim, "", "get_xl_samplers") == asked["get_samplers"]
    assert open_shim.call("GET", "/image/loras/SD-1.5").status_code == 401


def test_its_lists_take_a_key(shim: Shim, keys: Keys) -> None:
    for path in ("/loras", "/models-xl", "/samplers-xl", "/loras-xl"):
        assert shim.call("GET", path).status_code == 401
        assert shim.call("GET", path, keys.user).status_code == 200
        assert shim.call("GET", path, json={"token": keys.user}).status_code == 200


@pytest.mark.parametrize(
    ("key", "wish", "said"),
    [
        ("nonsense", {}, "that is no key of craft's"),
        ("", {}, "a key is needed"),
        (None, {"model": "flatt"}, "no model is called"),
        (None, {"sampler": "Slow"}, "no sampler is called 'Slow'"),
        (None, {"steps": 0}, "steps: input should be greater than"),
        (None, {"upscale": True}, "upscale: is not in craft"),
    ],
)
def test_it_reads_our_errors(shim: Shim, keys: Keys, key: str | None, wish: dict[str, object], said: str) -> None:
    key = keys.user if key is None else key
    answer = sdk(shim, key, "generate_image", **({"model": "flat"} | _WISH | wish))
    assert answer["raised"] == "HTTPError" and said in str(answer["said"]), answer


def test_it_reads_of_a_list_that_it_needs_a_key(shim: Shim) -> None:
    assert "a key is needed" in str(sdk(shim, "", "get_loras")["said"])


@pytest.mark.parametrize("field", ["upscale", "watermark", "nsfw_filter"])
def test_fields_that_packages_send(shim: Shim, keys: Keys, field: str) -> None:
    """Neutral, they say which answer is expected; the first API's callers go on getting theirs."""
    body: dict[str, object] = {"model": "flat", "prompt": "x", "steps": 2}
    (url,) = shim.post("/generate", keys.user, **body, **{field: False}).json()["images"]
    assert shim.session.get(url, timeout=HANG_S).status_code == 200
    assert told(shim.post("/generate", keys.user, **body, **{field: True})) == (422, "INVALID_FIELD", field)
    (encoded,) = shim.post("/generate", keys.user, **body).json()
    assert base64.b64decode(encoded, validate=True).startswith(b"\x89PNG")
