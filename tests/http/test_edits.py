"""Pictures drawn from pictures, as OpenAI has it: its own package, and what others send."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from typing import Any

import openai
import pytest
import requests
from craft_protos import jobs_pb2
from craft_protos.reasons import CraftError
from craftd.http.multipart import parse
from PIL import Image

from tests.http.drawn_from import (
    CLEAR,
    GREEN,
    HOSTILE,
    OPAQUE,
    RED,
    encoded,
    half_clear,
    kept,
    picture,
    sha256_of,
    spec_of,
)
from tests.http.shim import LORA, Keys, Shim, check_says_nothing, told

EDITS, VARIATIONS = "/v1/images/edits", "/v1/images/variations"


@pytest.fixture
def client(shim: Shim, keys: Keys) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{shim.url}/v1", api_key=keys.user, max_retries=0) as one:
        yield one


def middle(base64_png: str | None) -> object:
    assert base64_png
    with Image.open(io.BytesIO(base64.b64decode(base64_png))) as opened:
        return opened.convert("RGB").getpixel((opened.width // 2, opened.height // 2))


def form(shim: Shim, key: str, path: str = EDITS, *, files: Any = None, **fields: Any) -> requests.Response:
    files = {"image": ("a.png", picture())} if files is None else files
    return shim.call("POST", path, key, files=files, data={"prompt": "x", "model": "flat", **fields})


def test_an_edit(shim: Shim, client: openai.OpenAI) -> None:
    """Without a mask the picture is drawn from; with strength 0 it comes back."""
    image = picture((32, 64))
    made = client.images.edit(image=image, prompt="a red apple", model="flat", extra_body={"strength": 0})
    assert made.data is not None and middle(made.data[0].b64_json) == RED and made.size == "32x64"
    spec = spec_of(shim)
    assert (spec.start.sha256, spec.start.strength, spec.start.fit) == (sha256_of(image), 0, jobs_pb2.FIT_CROP)
    assert not spec.HasField("mask")


def test_everything_that_is_said_counts(shim: Shim, client: openai.OpenAI) -> None:
    made = client.images.edit(
        image=[("photo.jpg", picture((200, 100), kind="JPEG"))],
        mask=half_clear((200, 100)),
        prompt="a red apple",
        model="pocket",
        n=2,
        size="128x64",
        output_format="webp",
        input_fidelity="high",
        background="opaque",
        user="somebody",
        extra_body={
            "num_inference_steps": 4,
            "seed": 5,
            "strength": 0.75,
            "mask_blur": 2.5,
            "loras": [{"lora": LORA, "weight": 0.5}],
        },
    )
    assert made.data is not None and len(made.data) == 2 and made.output_format == "webp"
    spec = spec_of(shim)
    assert (spec.width, spec.height, spec.count, spec.seed, spec.steps) == (128, 64, 2, 5, 4)
    assert (spec.start.strength, spec.mask.blur, spec.mask.invert, spec.mask.HasField("padding")) == (
        0.75,
        2.5,
        False,
        False,
    )
    assert (spec.loras[0].name, spec.loras[0].weight) == (LORA, 0.5)


@pytest.mark.parametrize(
    ("mask", "left", "right"),
    [
        (half_clear(), 255, 0),
        (half_clear(alpha=100), 155, 0),  # what is half transparent is drawn anew by half
        (picture(colour=OPAQUE), 0, 0),  # the picture comes back
        (picture(colour=CLEAR), 255, 255),
    ],
)
def test_what_is_transparent_is_drawn_anew(
    shim: Shim, client: openai.OpenAI, mask: bytes, left: int, right: int
) -> None:
    client.images.edit(image=picture(), mask=mask, prompt="x", model="flat")
    spec = spec_of(shim)
    made = kept(shim, spec.mask.sha256)
    assert (made.mode, made.size) == ("L", (64, 64)) and (spec.start.strength, spec.mask.blur) == (1.0, 4.0)
    assert (made.getpixel((16, 32)), made.getpixel((48, 32))) == (left, right)


def test_a_mask_is_turned_as_its_exif_says(shim: Shim, client: openai.OpenAI) -> None:
    turned, stream = Image.Exif(), io.BytesIO()
    turned[0x0112] = 6  # a quarter
    with Image.open(io.BytesIO(half_clear((64, 32)))) as mask:
        mask.save(stream, "PNG", exif=turned)
    client.images.edit(image=picture((32, 64)), mask=stream.getvalue(), prompt="x", model="flat")
    made = kept(shim, spec_of(shim).mask.sha256)
    assert made.size == (32, 64) and (made.getpixel((16, 8)), made.getpixel((16, 56))) == (255, 0)


@pytest.mark.parametrize(
    ("fields", "strength"),
    [({}, 0.8), ({"input_fidelity": "low"}, 0.8), ({"input_fidelity": "high"}, 0.5), ({"strength": 0.3}, 0.3)],
)
def test_how_much_of_the_picture_is_left(shim: Shim, keys: Keys, fields: dict[str, Any], strength: float) -> None:
    assert form(shim, keys.user, **fields).status_code == 200
    assert spec_of(shim).start.strength == strength


def test_variations_need_no_words(shim: Shim, client: openai.OpenAI) -> None:
    with pytest.warns(DeprecationWarning):  # OpenAI's own models of it are gone
        made = client.images.create_variation(image=picture(colour=GREEN), model="flat", n=2)
    assert made.data is not None and len(made.data) == 2
    spec = spec_of(shim)
    assert (spec.prompt, spec.start.strength, spec.count) == ("", 0.8, 2)
    with pytest.raises(openai.UnprocessableEntityError) as refused:
        client.images.generate(prompt="", model="flat")
    assert refused.value.param == "prompt"


def test_streams(client: openai.OpenAI) -> None:
    stream = client.images.edit(
        image=picture(),
        prompt="[slow] x",
        model="flat",
        stream=True,
        partial_images=2,
        extra_body={"num_inference_steps": 30},
    )
    kinds = [event.type for event in stream]
    assert kinds[-1] == "image_edit.completed" and set(kinds[:-1]) == {"image_edit.partial_image"}


@pytest.mark.parametrize(
    "body",
    [
        {"image": encoded(picture())},
        {"image": [f"data:image/png;base64,{encoded(picture())}"]},
        {"images": [{"image_url": f"data:image/png;base64,{encoded(picture())}"}]},
    ],
)
def test_pictures_in_json(shim: Shim, keys: Keys, body: dict[str, Any]) -> None:
    """With a mask, and whatever the body is called."""
    answer = shim.post(EDITS, keys.user, prompt="x", model="flat", mask=encoded(half_clear()), **body)
    assert answer.status_code == 200, answer.text
    assert spec_of(shim).start.sha256 == sha256_of(picture()) and spec_of(shim).mask.sha256


def test_urls_are_public_and_do_not_tell_what_they_were_made_from(shim: Shim, client: openai.OpenAI) -> None:
    image = picture(colour=(1, 2, 3))
    made = client.images.edit(image=image, prompt="x", model="flat", response_format="url")
    assert made.data is not None and made.data[0].url is not None
    answer = shim.session.get(made.data[0].url, timeout=60)
    assert answer.status_code == 200 and sha256_of(image).encode() not in answer.content


def test_the_same_call_again_is_the_same_job(shim: Shim, keys: Keys) -> None:
    def send(image: bytes) -> requests.Response:
        files = {"image": ("a.png", image), "mask": ("m.png", half_clear())}
        headers = {"Idempotency-Key": "edits"}
        return shim.call("POST", EDITS, keys.user, files=files, data={"prompt": "x", "model": "flat"}, headers=headers)

    first, job = send(picture()), shim.newest().id
    again = send(picture())
    assert first.status_code == again.status_code == 200 and first.json()["data"] == again.json()["data"]
    assert shim.newest().id == job
    assert told(send(picture(colour=GREEN)))[:2] == (409, "REQUEST_ID_CLASH")


_IMAGE = ("a.png", picture())


@pytest.mark.parametrize(
    ("sent", "field", "said"),
    [
        (({"mask": ("m.png", half_clear())}, {}), "image", "is missing"),
        (([("image[]", _IMAGE), ("image[]", _IMAGE)], {}), "image", "are 2"),
        (({"image": ("a.png", b"")}, {}), "image", "to 50000000 (send a whole picture)"),
        (({"image": _IMAGE, "mask": ("m.png", picture())}, {}), "mask", "no alpha channel"),
        (({"image": _IMAGE, "photo": _IMAGE}, {}), "photo", "no field"),
        ((None, {"strength": "1.5"}), "strength", "less than or equal to 1"),
        ((None, {"strength": "0.01"}), "strength", "less than one"),
        ((None, {"mask_blur": "3"}), "mask_blur", "there is none"),
        ((None, {"n": "11"}), "n", ""),
        ((None, {"size": "large"}), "size", "WIDTHxHEIGHT"),
        ((None, {"size": "63x63"}), "size", "multiple of"),
        ((None, {"background": "transparent"}), "background", ""),
        ((None, {"strenght": "1"}), "strenght", "no field"),
    ],
)
def test_what_is_wrong_is_said_in_its_own_words(
    shim: Shim, keys: Keys, sent: tuple[Any, dict[str, str]], field: str, said: str
) -> None:
    answer = form(shim, keys.user, files=sent[0], **sent[1])
    assert told(answer)[0] == 422 and told(answer)[2] == field and said in answer.json()["error"]["message"]
    check_says_nothing(answer.text)


def test_an_edit_needs_a_prompt(shim: Shim, keys: Keys) -> None:
    answer = shim.call("POST", EDITS, keys.user, files={"image": _IMAGE}, data={"model": "flat"})
    assert told(answer) == (422, "INVALID_FIELD", "prompt")


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pictures(shim: Shim, keys: Keys, name: str) -> None:
    data = HOSTILE[name]
    before = shim.newest().id
    answers = [
        form(shim, keys.user, files={"image": ("a.png", data)}),
        form(shim, keys.user, files={"image": _IMAGE, "mask": ("a.png", data)}),
        form(shim, keys.user, VARIATIONS, files={"image": ("a.png", data)}),
        shim.post(EDITS, keys.user, prompt="x", model="flat", image=encoded(data)),
    ]
    assert [told(one) for one in answers] == [
        (422, "BAD_INPUT", field) for field in ("image", "mask", "image", "image")
    ]
    for answer in answers:
        check_says_nothing(answer.text)
    own = shim.call("POST", "/inputs", keys.user, data=data)
    assert told(own) == (422, "BAD_INPUT", "picture")
    assert shim.newest().id == before


@pytest.mark.parametrize(
    ("image", "said"),
    [("no base64!", "no base64"), ("https://example.com/a.png", "fetches nothing"), (7, "must be a picture")],
)
def test_what_is_no_picture_in_json(shim: Shim, keys: Keys, image: object, said: str) -> None:
    answer = shim.post(EDITS, keys.user, prompt="x", model="flat", image=image)
    assert told(answer)[2] == "image" and said in answer.json()["error"]["message"]


def test_large_photos_pass_and_larger_bodies_do_not(shim: Shim, keys: Keys) -> None:
    """12 megapixels, as incompressible as a photo gets."""
    photo = picture((4000, 3000), kind="BMP")
    with Image.open(io.BytesIO(photo)) as opened:
        stream = io.BytesIO()
        opened.save(stream, "PNG", compress_level=0)
    assert len(stream.getvalue()) > 36_000_000
    answer = shim.call("POST", "/inputs", keys.user, data=stream.getvalue())
    assert answer.status_code == 201 and (answer.json()["width"], answer.json()["height"]) == (4000, 3000)
    answer = form(shim, keys.user, files={"image": ("a.png", stream.getvalue())}, size="64x64")
    assert answer.status_code == 200
    answer = shim.call("POST", EDITS, keys.user, data=b"x" * (51 << 20))
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "MESSAGE_TOO_BIG")


def test_a_key_in_the_form(shim: Shim, keys: Keys) -> None:
    assert form(shim, "", token=keys.user).status_code == 200
    assert form(shim, "", token="nonsense").status_code == 401


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data", b"--a\r\n"),
        ("multipart/form-data; boundary=a", b""),
        ("multipart/form-data; boundary=a", b"--a\r\nContent-Disposition: form-data; name=x\r\n\r\ny"),
        ("multipart/form-data; boundary=a", b"--a\r\nContent-Type: x\r\n\r\ny\r\n--a--"),
        ("multipart/form-data; boundary=a", b"--a\r\nno headers\r\n--a--"),
        ("multipart/form-data; boundary=a", b'--a\r\nContent-Disposition: form-data; name="x"\r\n\r\n\xff\r\n--a--'),
        ("multipart/form-data; boundary=a", b"--b\r\n\r\n--b--"),
        ("application/json", b"[]"),
        ("application/json", b"{"),
        ("application/json", b"[" * 1000),
    ],
)
def test_bodies_that_cannot_be_read(shim: Shim, keys: Keys, kind: str, body: bytes) -> None:
    answer = shim.call("POST", EDITS, keys.user, data=body, headers={"Content-Type": kind})
    assert told(answer)[:2] == (400, "UNDECODABLE")


def test_forms_are_taken_apart() -> None:
    body = (
        b'preamble\r\n--b\r\ncontent-disposition: form-data; name="a"\r\n\r\n\r\n--b\r\n'
        b"Content-Type: image/png\r\nContent-Disposition: form-data; filename=x.png; name=b\r\n\r\n\r\n-- \r\n\0"
        b"\r\n--b--\r\nepilogue"
    )
    with pytest.raises(CraftError):
        parse("multipart/form-data; boundary=c", body)
    found = parse('multipart/form-data; charset=utf-8; boundary="b"', body)
    assert [(one.name, bytes(one.data), one.is_file) for one in found] == [
        ("a", b"", False),
        ("b", b"\r\n-- \r\n\0", True),
    ]


@pytest.mark.parametrize("field", ["image", "mask"])
def test_an_address_in_a_form_is_called_one(shim: Shim, keys: Keys, field: str) -> None:
    files = {"image": ("a.png", picture()), "mask": ("m.png", half_clear())}
    files.pop(field)
    answer = form(shim, keys.user, files=files, **{field: "https://example.com/a.png"})
    assert told(answer)[1:] == ("BAD_DATA", field)
    assert "is an address, and craft fetches nothing" in answer.text and "a file of a form" in answer.text
