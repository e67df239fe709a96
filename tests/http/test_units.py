"""Parts of the shim without a daemon."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from craft_protos.reasons import CraftError
from craftd.http import infotexts
from craftd.http.errors import public
from craftd.http.forms.automatic1111 import Txt2ImgRequest, generate_request, name_of
from craftd.http.guards import host_name, is_loopback, names_of
from craftd.http.shape import Shape, check_shape
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


_BYTES = 16_000_000
_MALICE = {
    "escaped quotes": b'"' + b'\\"' * (_BYTES // 2),
    "quotes": b'"' * _BYTES,
    "backslashes": b"\\" * _BYTES,
    "a string of backslashes": b'{"a":"' + b"\\" * _BYTES,
    "nothing": b"[" + b" " * _BYTES,
}


@pytest.mark.parametrize("body", _MALICE.values(), ids=_MALICE)
def test_the_look_at_a_body_takes_no_longer_for_malice(body: bytes) -> None:
    """Linear, or this test would not end; and others get their turns between the pieces."""

    async def look() -> int:
        looking = asyncio.create_task(check_shape(body))
        turns = 0
        while not looking.done():
            await asyncio.sleep(0)
            turns += 1
        await looking
        return turns

    assert asyncio.run(look()) > 400


@given(
    st.recursive(st.text() | st.integers() | st.none(), lambda part: st.lists(part) | st.dictionaries(st.text(), part))
)
def test_what_a_request_may_be_passes(value: object) -> None:
    asyncio.run(check_shape(json.dumps(value).encode()))


@given(st.text('"\\[]{}:,n', max_size=60), st.lists(st.integers(0, 60), max_size=6))
def test_bodies_are_looked_at_in_pieces_as_if_whole(text: str, cuts: list[int]) -> None:
    """Against a reader that goes from character to character; a cut may be within a string or an escape."""
    body, shape = text.encode(), Shape()
    places = [0, *sorted(cuts), len(body)]
    bare = b"".join(shape._outside_strings(body[start:end]) for start, end in pairwise(places))
    assert bare.replace(b"\\", b"") == _outside_strings(text).encode()


def _outside_strings(text: str) -> str:
    bare, is_in_string, is_escaped = "", False, False
    for character, after in zip(text, text[1:] + " ", strict=False):
        if is_escaped:
            is_escaped = False
        elif character == "\\":
            is_escaped = after in ("\\", '"')
        elif character == '"':
            is_in_string = not is_in_string
        elif not is_in_string:
            bare += character
    return bare


_DECOYS = ["", '"]}', "\\", '\\"[', "[[{{", "\\\\]"]


@given(st.lists(st.sampled_from(_DECOYS), max_size=4), st.integers(1, 40), st.integers(1, 20))
def test_depth_is_that_of_the_json(strings: list[str], depth: int, piece_bytes: int) -> None:
    value: object = strings
    for level in range(depth - 1):
        value = [*strings, value] if level % 2 else {"".join(strings): value}
    body, shape = json.dumps(value).encode(), Shape()
    told = [shape.add(body[start : start + piece_bytes]) for start in range(0, len(body), piece_bytes)]
    assert any(told) == (depth > 32)


@pytest.mark.parametrize(
    "encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be", "utf-8-sig"]
)
def test_no_encoding_hides_the_shape(encoding: str) -> None:
    for text in ('{"prompt": "x"}', "[" * 100_000, '"'):
        with pytest.raises(CraftError, match="UTF-8") as refusal:
            asyncio.run(check_shape(text.encode(encoding)))
        assert refusal.value.reason == "UNDECODABLE"


def test_what_closes_too_much_is_left_at_once() -> None:
    with pytest.raises(CraftError, match="has not opened"):
        asyncio.run(check_shape(b"[]" + b"]" * 16_000_000))


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
