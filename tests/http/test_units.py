"""Parts of the shim without a daemon."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from craftd.http import infotexts
from craftd.http.errors import public
from craftd.http.forms.automatic1111 import Txt2ImgRequest, generate_request, name_of
from craftd.http.guards import _complaint, host_name, is_loopback, names_of
from craftd.http.sizes import side_lengths
from craftd.models.model import Defaults, Model
from hypothesis import given
from hypothesis import strategies as st

MODEL = Model("m", Path("m"), "sd", "", 8, Defaults(512, 512, 20, 7.5, "Euler"), ())


@pytest.mark.parametrize(
    ("told", "public_part"),
    [
        ("/var/lib/craft/images/x.png: the file is gone", "x.png: the file is gone"),
        ("LoRA it: /home/me/My Loras/it.safetensors has changed", "LoRA it: it.safetensors has changed"),
        ("[Errno 28] No space left: '/data/a/b'", "[Errno 28] No space left: 'b'"),
        ("~/.cache/craft/x", "x"),
        ("<PIL.Image object at 0x7f3a2c1b0d90>", "<PIL.Image object>"),
        ("and/or, 1/2, GET /docs lists them all", "and/or, 1/2, GET /docs lists them all"),
        ("a \ud800 b", "a ? b"),
    ],
)
def test_paths_and_addresses_stay_here(told: str, public_part: str) -> None:
    assert public(told) == public_part


@pytest.mark.parametrize(
    "body", [b'"' + b'\\"' * 500_000, b'"' * 900_001, b"\\" * 900_000, b'{"a":"' + b"\\" * 900_001]
)
def test_the_look_at_a_body_takes_no_longer_for_malice(body: bytes) -> None:
    """Linear, or this test would not end."""
    assert _complaint(body) == ""


@given(
    st.recursive(st.text() | st.integers() | st.none(), lambda part: st.lists(part) | st.dictionaries(st.text(), part))
)
def test_what_a_request_may_be_passes(value: object) -> None:
    assert _complaint(json.dumps(value).encode()) == ""


@pytest.mark.parametrize(
    ("shape", "sides"),
    [
        ("square_hd", (512, 512)),
        ("square", (256, 256)),
        ("portrait_4_3", (440, 592)),
        ("landscape_4_3", (592, 440)),
        ("portrait_16_9", (384, 680)),
        ("landscape_16_9", (680, 384)),
    ],
)
def test_shapes_have_the_models_pixels(shape: str, sides: tuple[int, int]) -> None:
    assert side_lengths(shape, MODEL) == sides
    width, height = side_lengths(shape, replace(MODEL, granularity=64))
    assert width % 64 == height % 64 == 0


def test_names_of_servers() -> None:
    assert [host_name(host) for host in ("[::1]:80", "LOCALHOST:1", "a.b.", "::1")] == ["::1", "localhost", "a.b", ""]
    assert is_loopback("127.8.8.8") and is_loopback("::1") and not is_loopback("0.0.0.0") and not is_loopback("a")
    shut, wide = (names_of(host, "", (), ()) for host in ("127.0.0.1", "0.0.0.0"))
    assert not shut.knows_host("10.0.0.1") and wide.knows_host("10.0.0.1") and not wide.knows_host("evil.example")
    assert wide.knows_origin("https://10.0.0.1", "10.0.0.1:443") and not wide.knows_origin(
        "https://10.0.0.1:1", "10.0.0.1"
    )


def test_what_automatic1111s_requests_mean() -> None:
    body = Txt2ImgRequest(prompt="x", sampler_index="DPM++ 2M", scheduler="Karras", seed=-1, batch_size=2, n_iter=3)
    meant = generate_request(body, "m")
    assert (meant.sampler, meant.seed, meant.count, meant.model) == ("DPM++ 2M Karras", None, 6, "m")
    assert generate_request(Txt2ImgRequest(prompt="x", scheduler="Automatic"), "").sampler == ""
    assert name_of("dream v1 [abcdef1234]") == "dream v1" and name_of("a [draft]") == "a [draft]"


def test_infotexts() -> None:
    made = {"prompt": "x", "steps": 5, "loras": [{"name": "it", "weight": 0.5}], "model": {"name": "m", "sha256": "ab"}}
    text = infotexts.of_provenance(json.dumps(made))
    assert text.startswith("x <lora:it:0.5>\nSteps: 5,") and infotexts.parse(text)["Model"] == "m"
    assert infotexts.of_provenance("[]") == infotexts.of_provenance("?") == infotexts.of_provenance("{}") == ""


def test_nobody_else_pays_for_it() -> None:
    """A daemon without HTTP imports none of its libraries."""
    dear = ("fastapi", "starlette", "uvicorn", "pydantic", "limits", "prometheus_client")
    code = f"import sys, craftd.serve; print([name for name in {dear} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
