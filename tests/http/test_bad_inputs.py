"""Rows 15 to 24 of the table of bad inputs, and row 7 over HTTP: a status, a reason, the field; memory stays flat."""

from __future__ import annotations

import base64
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator

import pytest
import requests
from PIL import Image

from tests.http.shim import LORA, Keys, Shim, told

DRAWING = ("/generate", "/image/generate", "/image/create/lora", "/v1/images/generations", "/sdapi/v1/txt2img", "/jobs")
BODIES: dict[str, dict[str, object]] = {
    "/generate": {"model": "flat", "prompt": "x"},
    "/image/generate": {"model": "flat", "prompt": "x"},
    "/image/create/lora": {"lora_id": LORA, "prompt": "x", "response_format": "url"},
    "/v1/images/generations": {"prompt": "x"},
    "/sdapi/v1/txt2img": {"prompt": "x", "steps": 2},
    "/jobs": {"prompt": "x"},
}
each = pytest.mark.parametrize("path", DRAWING)


@pytest.fixture(autouse=True)
def alive(shim: Shim) -> Iterator[None]:
    """The next request is served, whatever came before, and nothing unexpected was logged."""
    yield
    assert shim.call("GET", "/healthz").json() == {"status": "ok"}
    assert "unexpected error" not in shim.home.log


def raw(shim: Shim, path: str, key: str, data: bytes, **headers: str) -> requests.Response:
    headers = {"content-type": "application/json", **{name.replace("_", "-"): text for name, text in headers.items()}}
    return shim.call("POST", path, key, data=data, headers=headers)


@each
def test_unknown_names(shim: Shim, keys: Keys, path: str) -> None:
    wrong = {"lora_id": "heroo"} if path == "/image/create/lora" else {"model": "flatt"}
    if path == "/sdapi/v1/txt2img":
        wrong = {"override_settings": {"sd_model_checkpoint": "flatt"}}  # type: ignore[dict-item]
    answer = shim.post(path, keys.user, **(BODIES[path] | wrong))
    status, reason, _ = told(answer)
    assert (status, reason) == (404, "UNKNOWN_LORA" if "lora_id" in wrong else "UNKNOWN_MODEL")
    assert ("hero'" if "lora_id" in wrong else "flat") in answer.text


@each
def test_deep_json(shim: Shim, keys: Keys, path: str) -> None:
    before = shim.status().rss_bytes
    for data in (b"[" * 100_000, b'{"a":' * 100_000, b'{"prompt":' + b"[" * 50_000 + b"]" * 50_000 + b"}"):
        assert told(raw(shim, path, keys.user, data))[:2] == (400, "UNDECODABLE")
    fields = json.dumps({f"field{i}": i for i in range(100_000)}).encode()
    assert told(raw(shim, path, keys.user, fields))[0] in (400, 413)
    short = ("{" + ",".join(f'"{i:x}":0' for i in range(60_000)) + "}").encode()
    assert told(raw(shim, path, keys.user, short))[:2] == (400, "UNDECODABLE")
    assert shim.status().rss_bytes - before < 24 << 20


@each
def test_bombs_and_large_bodies(shim: Shim, keys: Keys, path: str) -> None:
    before = shim.status().rss_bytes
    bomb = gzip.compress(b'{"prompt":"' + b"a" * (32 << 20) + b'"}')
    assert told(raw(shim, path, keys.user, bomb, content_encoding="gzip"))[:2] == (400, "UNDECODABLE")
    assert told(raw(shim, path, keys.user, zlib.compress(b"{}"), content_encoding="deflate"))[0] == 400
    large = b'{"prompt":"' + b"a" * (4 << 20) + b'"}'
    takes_pictures = path == "/sdapi/v1/txt2img"  # of its units: so large a body is read, and has no such prompt
    refused = (422, "INVALID_FIELD") if takes_pictures else (413, "MESSAGE_TOO_BIG")
    assert told(raw(shim, path, keys.user, large))[:2] == refused
    chunks = (large[place : place + 65536] for place in range(0, len(large), 65536))
    streamed = shim.call("POST", path, keys.user, data=chunks, headers={"content-type": "application/json"})
    assert told(streamed)[:2] == refused
    assert shim.status().rss_bytes - before < 24 << 20


@each
def test_what_is_no_json(shim: Shim, keys: Keys, path: str) -> None:
    for data in (b"{", b"nonsense", b"\xff\xfe", b'{"prompt": "x"', b'{"n": ' + b"9" * 5000 + b"}", b'"unclosed'):
        assert told(raw(shim, path, keys.user, data))[:2] == (400, "UNDECODABLE")
    for data in (b"[]", b"null", b"3", b""):
        assert told(raw(shim, path, keys.user, data))[0] == 422


@each
def test_lone_surrogates_and_control_characters(shim: Shim, keys: Keys, path: str) -> None:
    for prompt in (r'"x\ud800"', r'"\udfff\ud800"', r'"a\u0000b"'):
        data = json.dumps(BODIES[path] | {"prompt": "?"}).replace('"?"', prompt).encode()
        assert told(raw(shim, path, keys.user, data)) == (422, "INVALID_FIELD", "prompt")
    assert told(raw(shim, path, keys.user, rb'{"prompt":"x","\ud800":1,"steps":0,"n":0}'))[0] == 422


def newest(shim: Shim, key: str) -> list[str]:
    return [job["id"] for job in shim.call("GET", "/jobs?page_size=1", key).json()["jobs"]]


@pytest.mark.parametrize(
    ("said", "field"),
    [
        (r'"foo": "\ud800"', "foo"),
        (r'"foo": {"a": ["b", "\udfff"]}', "foo"),
        (r'"foo": {"\ud800": 1}', "foo"),
        ('"foo": [NaN]', "foo"),
        ('"foo": -Infinity', "foo"),
        (r'"script_args": ["\udfff"]', "script_args.0"),
        ('"script_args": [0, [Infinity]]', "script_args.1"),
        (r'"alwayson_scripts": {"a": {"args": [], "\ud800": 0}}', "alwayson_scripts.a"),
        (r'"override_settings": {"bar": "\ud800"}', "override_settings.bar"),
        ('"denoising_strength": NaN', "denoising_strength"),
    ],
)
def test_what_is_ignored_is_read_all_the_same(shim: Shim, keys: Keys, said: str, field: str) -> None:
    """It comes back among the answer's parameters."""
    before = newest(shim, keys.user)
    answer = raw(shim, "/sdapi/v1/txt2img", keys.user, f'{{"prompt": "x", "steps": 2, {said}}}'.encode())
    assert told(answer) == (422, "INVALID_FIELD", field)
    assert newest(shim, keys.user) == before, "nothing was drawn"


def test_names_that_are_no_unicode_are_refused(shim: Shim, keys: Keys) -> None:
    for said in (r'"\ud800": 1', r'"alwayson_scripts": {"\ud800": {"args": []}}'):
        answer = raw(shim, "/sdapi/v1/txt2img", keys.user, f'{{"prompt": "x", "steps": 2, {said}}}'.encode())
        assert told(answer)[:2] == (422, "INVALID_FIELD")


@each
def test_misspelt_fields(shim: Shim, keys: Keys, path: str) -> None:
    answer = shim.post(path, keys.user, **BODIES[path], promt="x")
    if path.startswith("/sdapi"):
        assert answer.status_code == 200 and answer.headers["x-craft-warning"] == "ignored: promt"
    else:
        assert told(answer) == (422, "INVALID_FIELD", "promt")


ABSURD = {
    "/generate": [
        ("image_count", 0),
        ("image_count", 6),
        ("image_count", 10**30),
        ("image_count", -1),
        ("image_count", True),
        ("steps", 0),
        ("width", 10**30),
        ("height", -8),
        ("cfg_scale", float("nan")),
        ("loras", {f"l{i}": 1 for i in range(6)}),
        ("loras", {"hero": float("inf")}),
    ],
    "/image/generate": [("image_count", 2), ("steps", 10**9), ("sampler", "No Such")],
    "/image/create/lora": [("image_size", "round"), ("response_format", "png"), ("prompt", ""), ("lora_id", " ")],
    "/v1/images/generations": [
        ("n", 10**30),
        ("n", 0),
        ("n", 11),
        ("size", "0x0"),
        ("size", "65536x65536"),
        ("size", "big"),
        ("guidance_scale", float("-inf")),
        ("seed", 2**53),
        ("seed", -1),
        ("background", "transparent"),
        ("output_compression", 101),
        ("partial_images", 4),
        ("partial_images", 1),
        ("num_inference_steps", 0),
        ("num_inference_steps", 1001),
        ("size", "65x64"),
        ("size", "64x65"),
        ("style", "natural"),
        ("loras", ["x"] * 17),
    ],
    "/sdapi/v1/txt2img": [
        ("steps", 0),
        ("batch_size", 0),
        ("n_iter", 10**30),
        ("cfg_scale", float("nan")),
        ("seed", -2),
        ("hr_scale", 9),
        ("restore_faces", True),
        ("tiling", True),
        ("subseed_strength", 0.5),
        ("styles", ["vivid"]),
        ("script_name", "X/Y/Z plot"),
        ("scheduler", "logarithmic"),
        ("sampler_name", "DPM slow"),
        ("sampler_index", "DPM slow"),
        ("batch_size", 257),
        ("n_iter", 257),
        ("prompt", "x <lora:hero:11>"),
        ("width", 65),
        ("alwayson_scripts", {"ControlNet": {"args": [{"enabled": True}]}}),
    ],
    "/jobs": [("count", 10**30), ("steps", -1), ("seed", 2**60), ("guidance_scale", float("nan"))],
}


@pytest.mark.parametrize(
    ("path", "field", "value"), [(path, field, value) for path, cases in ABSURD.items() for field, value in cases]
)
def test_absurd_values_name_the_field(shim: Shim, keys: Keys, path: str, field: str, value: object) -> None:
    data = json.dumps(BODIES[path] | {field: value}).encode()
    status, reason, named = told(raw(shim, path, keys.user, data))
    assert (status, reason) == (422, "INVALID_FIELD")
    assert named.partition(".")[0] == field


def test_the_limit_is_named(shim: Shim, keys: Keys) -> None:
    for count in (0, 6):
        answer = shim.post("/generate", keys.user, model="flat", prompt="x", image_count=count)
        assert re.search("greater than or equal to 1|less than or equal to 5", answer.json()["detail"])


def test_prompts_of_a_megabyte(shim: Shim, keys: Keys) -> None:
    answer = shim.post("/generate", keys.user, model="flat", prompt="a" * 900_000)
    assert told(answer) == (422, "INVALID_FIELD", "prompt")
    answer = shim.post("/generate", keys.user, model="flat", prompt="a" * 50_000)
    assert told(answer) == (422, "INVALID_FIELD", "prompt") and "20000" in answer.json()["detail"]


# Pictures


def png(side: int = 64, text: dict[str, str] | None = None) -> bytes:
    from PIL.PngImagePlugin import PngInfo

    notes, stream = PngInfo(), io.BytesIO()
    for name, value in (text or {}).items():
        notes.add_text(name, value, zip=True)
    Image.new("RGB", (side, side), "red").save(stream, "PNG", pnginfo=notes)
    return stream.getvalue()


def declared(width: int, height: int) -> bytes:
    """A PNG whose header promises so many pixels."""
    body = b"IHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x02\0\0\0"
    chunk = (13).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")
    whole = png()
    return whole[:8] + chunk + whole[33:]


def with_exif(exif: bytes) -> bytes:
    """A PNG with an eXIf chunk."""
    body, whole = b"eXIf" + exif, png()
    return whole[:33] + len(exif).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big") + whole[33:]


def bmp() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "BMP")
    return stream.getvalue()


def webp() -> bytes:
    stream = io.BytesIO()
    Image.effect_noise((64, 64), 50).convert("RGB").save(stream, "WEBP")
    return stream.getvalue()


UPLOADS = {
    "truncated": png()[:-30],
    "cut in its header": png()[:20],
    "a webp's half": webp()[:400],
    "empty": b"",
    "text": b"not a picture",
    "a format that is not read": bmp(),
    "65535 pixels square": declared(65535, 65535),
    "17 megapixels": declared(4097, 4096),
    "no pixels": declared(0, 0),
    "exif that ends in its header": with_exif(b"II*\0\x01"),
    "a text chunk that grows": png(text={"parameters": "a" * (48 << 20)}),
}


@pytest.mark.parametrize("what", UPLOADS)
def test_bad_pictures(shim: Shim, keys: Keys, what: str) -> None:
    before = shim.status().rss_bytes
    answer = shim.post("/sdapi/v1/png-info", keys.user, image=base64.b64encode(UPLOADS[what]).decode())
    assert told(answer) == (422, "BAD_DATA", "image")
    assert "0x" not in answer.text and "object" not in answer.text
    assert shim.status().rss_bytes - before < 64 << 20


@pytest.mark.parametrize(
    ("craft", "info"),
    [
        ("[" * 99_999, ""),
        ('{"prompt":' + "[" * 40_000 + "]" * 40_000 + "}", ""),
        ('{"prompt":' + "9" * 50_000 + "}", ""),
        ('{"model": 3, "loras": [1], "prompt": "a\\ud800b"}', ""),
    ],
)
def test_words_of_pictures_that_are_anybodys(shim: Shim, keys: Keys, craft: str, info: str) -> None:
    image = base64.b64encode(png(text={"craft": craft})).decode()
    answer = shim.post("/sdapi/v1/png-info", keys.user, image=image)
    assert answer.status_code == 200 and answer.json()["info"].startswith(info)
    assert answer.json()["info"] or not info


@pytest.mark.parametrize("form", ["lines", "unpadded", "urlsafe", "spaces around", "data URL"])
def test_base64_as_programs_write_it(shim: Shim, keys: Keys, form: str) -> None:
    for extra in range(3):  # each length of the padding
        data = png(text={"parameters": "ÿ" * (7 + extra)})
        plain = base64.b64encode(data).decode()
        image = {
            "lines": base64.encodebytes(data).decode(),
            "unpadded": plain.rstrip("="),
            "urlsafe": base64.urlsafe_b64encode(data).decode(),
            "spaces around": f"\r\n {plain} \r\n",
            "data URL": f"data:image/png;base64,{plain.rstrip('=')}",
        }[form]
        answer = shim.post("/sdapi/v1/png-info", keys.user, image=image)
        assert answer.status_code == 200, answer.text
        assert answer.json()["info"] == "ÿ" * (7 + extra)


def test_pictures_that_are_no_base64(shim: Shim, keys: Keys) -> None:
    for image in ("?", "data:image/png;base64,%%%", "é", "a" * 100_001):
        assert told(shim.post("/sdapi/v1/png-info", keys.user, image=image)) == (422, "BAD_DATA", "image")
