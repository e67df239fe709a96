"""AUTOMATIC1111's img2img, through webuiapi and as other programs send it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
import webuiapi
from craft_protos import jobs_pb2
from craftd.http.forms.automatic1111_img2img import Img2ImgRequest
from PIL import Image

from tests.http.drawn_from import (
    GREEN,
    HOSTILE,
    RED,
    encoded,
    half_clear,
    kept,
    picture,
    sha256_of,
    spec_of,
)
from tests.http.shim import Keys, Shim, check_says_nothing, told

IMG2IMG = "/sdapi/v1/img2img"


@pytest.fixture
def api(shim: Shim, keys: Keys) -> Iterator[webuiapi.WebUIApi]:
    at = urlsplit(shim.url)
    made = webuiapi.WebUIApi(host=at.hostname, port=at.port, steps=20, username="craft", password=keys.user)
    with made.session:
        yield made


def send(shim: Shim, key: str, **fields: Any) -> requests.Response:
    body = {"init_images": [encoded(picture())], "override_settings": {"sd_model_checkpoint": "flat"}} | fields
    return shim.post(IMG2IMG, key, **body)


def test_what_webuiapi_sends(shim: Shim, api: webuiapi.WebUIApi) -> None:
    """With all the fields that it sends by itself."""
    made = api.img2img(
        images=[Image.new("RGB", (48, 48), RED)],
        prompt="a red apple",
        width=64,
        height=128,
        seed=7,
        batch_size=2,
        denoising_strength=0.5,
        override_settings={"sd_model_checkpoint": "flat"},
    )
    assert [one.size for one in made.images] == [(64, 128)] * 2 and made.info["denoising_strength"] == 0.5
    assert made.parameters["init_images"] is None and made.parameters["mask"] is None
    assert made.parameters["denoising_strength"] == 0.5
    spec = spec_of(shim)
    assert (spec.start.strength, spec.start.fit, spec.HasField("mask")) == (0.5, jobs_pb2.FIT_STRETCH, False)


def test_inpainting_with_webuiapi(shim: Shim, api: webuiapi.WebUIApi) -> None:
    """White is drawn anew, and only what is around it unless the request says otherwise."""
    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, (0, 0, 32, 64))
    made = api.img2img(
        images=[Image.new("RGB", (64, 64), RED)],
        mask_image=mask,
        prompt="x",
        width=64,
        height=64,
        override_settings={"sd_model_checkpoint": "flat"},
    )
    assert made.image.size == (64, 64)
    spec = spec_of(shim)
    assert (spec.start.strength, spec.mask.blur, spec.mask.invert, spec.mask.padding) == (0.75, 4, False, 0)
    found = kept(shim, spec.mask.sha256)
    assert (found.getpixel((8, 8)), found.getpixel((56, 8))) == (255, 0)


@pytest.mark.parametrize(
    ("fields", "made"),
    [
        ({}, (4, False, 0)),
        ({"inpaint_full_res": False}, (4, False, None)),
        ({"inpaint_full_res": 1, "inpaint_full_res_padding": 32, "inpainting_mask_invert": 1}, (4, True, 32)),
        ({"inpaint_full_res": 0, "mask_blur": 7, "mask_blur_y": 5, "inpainting_mask_invert": 0}, (7, False, None)),
        ({"mask_blur_x": 0, "mask_blur_y": 0}, (0, False, 0)),
    ],
)
def test_masks(shim: Shim, keys: Keys, fields: dict[str, Any], made: tuple[float, bool, int | None]) -> None:
    answer = send(shim, keys.user, mask=encoded(picture(colour=(255, 255, 255))), **fields)
    assert answer.status_code == 200, answer.text
    mask = spec_of(shim).mask
    assert (mask.blur, mask.invert, mask.padding if mask.HasField("padding") else None) == made


def test_a_mask_with_alpha_shows_where_it_is_opaque(shim: Shim, keys: Keys) -> None:
    """Wholly or not at all; one that is opaque everywhere is looked at by its whiteness."""
    assert send(shim, keys.user, mask=encoded(half_clear(alpha=120))).status_code == 200
    found = kept(shim, spec_of(shim).mask.sha256)
    assert (found.getpixel((8, 8)), found.getpixel((56, 8))) == (0, 255)
    assert send(shim, keys.user, mask=encoded(picture(colour=(255, 255, 255, 255)))).status_code == 200
    assert kept(shim, spec_of(shim).mask.sha256).getpixel((8, 8)) == 255


@pytest.mark.parametrize(("mode", "fit"), [(0, jobs_pb2.FIT_STRETCH), (1, jobs_pb2.FIT_CROP), (2, jobs_pb2.FIT_FILL)])
def test_resize_modes(shim: Shim, keys: Keys, mode: int, fit: int) -> None:
    assert send(shim, keys.user, resize_mode=mode, width=64, height=32).status_code == 200
    spec = spec_of(shim)
    assert (spec.start.fit, spec.width, spec.height, spec.start.strength) == (fit, 64, 32, 0.75)


def test_a_data_url_no_words_and_no_size(shim: Shim, keys: Keys) -> None:
    image = picture((32, 64), GREEN)
    url = f"data:image/png;base64,{encoded(image)}"
    answer = send(shim, keys.user, init_images=[url], denoising_strength=0, include_init_images=True, mask=None)
    assert answer.status_code == 200 and answer.json()["parameters"]["init_images"] == [url]
    spec = spec_of(shim)
    assert (spec.start.sha256, spec.prompt, spec.width, spec.height) == (sha256_of(image), "", 32, 64)
    assert json.loads(answer.json()["info"])["denoising_strength"] == 0


def test_what_is_not_done_is_said(shim: Shim, keys: Keys) -> None:
    mask = encoded(picture(colour=(255, 255, 255)))
    for fill, warned in ((1, None), (0, "drawn as the picture is: inpainting_fill")):
        answer = send(shim, keys.user, mask=mask, inpainting_fill=fill)
        assert answer.headers.get("x-craft-warning") == warned
    answer = send(shim, keys.user, inpainting_fill=0, image_cfg_scale=1.5)
    assert answer.headers.get("x-craft-warning") == "ignored: image_cfg_scale"


@pytest.mark.parametrize(
    ("fields", "field", "said"),
    [
        ({"init_images": []}, "init_images", "is missing"),
        ({"init_images": None}, "init_images", "is missing"),
        ({"init_images": [encoded(picture())] * 2, "batch_size": 2}, "init_images", "are 2"),
        ({"init_images": ["no base64!"]}, "init_images[0]", "no base64"),
        ({"init_images": ["https://example.com/a.png"]}, "init_images[0]", "fetches nothing"),
        ({"mask": "no base64!"}, "mask", "no base64"),
        ({"denoising_strength": 1.5}, "denoising_strength", ""),
        ({"denoising_strength": 0.01, "steps": 20}, "denoising_strength", "less than one"),
        ({"resize_mode": 3}, "resize_mode", "not in craft"),
        ({"resize_mode": 4}, "resize_mode", ""),
        ({"initial_noise_multiplier": 0.5}, "initial_noise_multiplier", "not in craft"),
        ({"latent_mask": "x"}, "latent_mask", "not in craft"),
        ({"mask": encoded(picture()), "mask_blur_x": 3}, "mask_blur_y", "another"),
        ({"mask": encoded(picture()), "inpaint_full_res_padding": -1}, "inpaint_full_res_padding", ""),
        ({"width": 63}, "width", "multiple of"),
        ({"restore_faces": True}, "restore_faces", "not in craft"),
    ],
)
def test_what_is_wrong_is_said_in_its_own_words(
    shim: Shim, keys: Keys, fields: dict[str, Any], field: str, said: str
) -> None:
    answer = send(shim, keys.user, **fields)
    assert told(answer)[0] == 422 and told(answer)[2] == field and said in answer.json()["detail"]
    check_says_nothing(answer.text)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pictures(shim: Shim, keys: Keys, name: str) -> None:
    data = encoded(HOSTILE[name])
    assert told(send(shim, keys.user, init_images=[data])) == (422, "BAD_INPUT", "init_images[0]")
    assert told(send(shim, keys.user, mask=data)) == (422, "BAD_INPUT", "mask")


def test_bodies_that_cannot_be_read(shim: Shim, keys: Keys) -> None:
    for body in (b"{", b"[]", b'{"init_images": ' + b"[" * 100):
        assert told(shim.call("POST", IMG2IMG, keys.user, data=body))[:2] == (400, "UNDECODABLE")


def test_its_fields_are_documented(shim: Shim) -> None:
    schema = shim.call("GET", "/openapi.json").json()["paths"][IMG2IMG]["post"]
    fields = schema["requestBody"]["content"]["application/json"]["schema"]["properties"]
    assert {"init_images", "mask", "denoising_strength", "prompt"} <= fields.keys()
    assert set(Img2ImgRequest.model_fields) == fields.keys()
