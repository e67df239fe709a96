"""AUTOMATIC1111's extras and its hires, through webuiapi and as other programs send them; and craft's own way."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import webuiapi
from PIL import Image

from tests.http.drawn_from import HOSTILE, RED, encoded, picture, spec_of
from tests.http.shim import Keys, Shim, told

SINGLE, TXT2IMG = "/sdapi/v1/extra-single-image", "/sdapi/v1/txt2img"
FLAT = {"sd_model_checkpoint": "flat"}


@pytest.fixture
def api(shim: Shim, keys: Keys) -> Iterator[webuiapi.WebUIApi]:
    at = urlsplit(shim.url)
    made = webuiapi.WebUIApi(host=at.hostname, port=at.port, steps=20, username="craft", password=keys.user)
    with made.session:
        yield made


def size_of(text: str) -> tuple[int, int]:
    with Image.open(io.BytesIO(base64.b64decode(text))) as opened:
        return opened.size


def test_webuiapi_enlarges_one(shim: Shim, api: webuiapi.WebUIApi) -> None:
    made = api.extra_single_image(image=Image.new("RGB", (48, 32), RED), upscaler_1="Lanczos", upscaling_resize=1.5)
    assert made.image.size == (72, 48)
    spec = spec_of(shim)
    assert (spec.model, spec.steps, spec.upscale.model, spec.upscale.scale) == ("lanczos", 0, "lanczos", 1.5)
    assert spec.start.strength == 0 and not spec.prompt


def test_webuiapi_enlarges_several(api: webuiapi.WebUIApi) -> None:
    images = [Image.new("RGB", (20, 10), RED), Image.new("RGB", (10, 30), RED)]
    made = api.extra_batch_images(images=images, upscaler_1="Lanczos")
    assert [one.size for one in made.images] == [(40, 20), (20, 60)]


def test_none_gives_the_picture_back(api: webuiapi.WebUIApi) -> None:
    made = api.extra_single_image(image=Image.new("RGB", (48, 32), RED))
    assert made.image.size == (48, 32)


def test_to_a_size_of_its_shape(shim: Shim, keys: Keys) -> None:
    body = {"image": encoded(picture((40, 20))), "upscaler_1": "Lanczos", "resize_mode": 1}
    answer = shim.post(SINGLE, keys.user, **body, upscaling_resize_w=100, upscaling_resize_h=50)
    assert size_of(answer.json()["image"]) == (100, 50)
    assert told(shim.post(SINGLE, keys.user, **body))[1] == "INVALID_FIELD"


def test_what_enlarges_is_listed(api: webuiapi.WebUIApi) -> None:
    listed = api.get_upscalers()
    assert [one["name"] for one in listed][:2] == ["None", "Lanczos"]
    assert {"name", "model_name", "model_path", "model_url", "scale"} == set(listed[0])
    assert api.get_latent_upscale_modes() == []


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"upscaler_1": "Latent"}, "upscaler_1"),
        ({"upscaler_1": "4x-Nobody"}, "upscaler_1"),
        ({"upscaler_1": "flat"}, "upscaler_1"),
        ({"upscaling_resize": 17}, "upscaling_resize"),
        ({"upscaling_resize": 0.5}, "upscaling_resize"),
        ({"gfpgan_visibility": 0.5}, "gfpgan_visibility"),
        ({"codeformer_visibility": 1}, "codeformer_visibility"),
        ({"upscaler_2": "Lanczos", "extras_upscaler_2_visibility": 0.5}, "upscaler_2"),
        ({"image": "?"}, "image"),
    ],
)
def test_what_is_not_done_is_refused_by_name(shim: Shim, keys: Keys, fields: dict[str, Any], named: str) -> None:
    answer = shim.post(SINGLE, keys.user, **({"image": encoded(picture()), "upscaler_1": "Lanczos"} | fields))
    status, _, detail = told(answer)
    assert 400 <= status < 500 and detail.startswith(named), answer.text


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_hostile_pictures_are_refused(shim: Shim, keys: Keys, name: str) -> None:
    answer = shim.post(SINGLE, keys.user, image=encoded(HOSTILE[name]), upscaler_1="Lanczos")
    assert told(answer)[0] in (400, 413, 422), answer.text


def hires(**more: Any) -> dict[str, Any]:
    return {"prompt": "x", "width": 64, "height": 64, "steps": 4, "override_settings": FLAT, "enable_hr": True} | {
        **{"hr_upscaler": "Lanczos", "denoising_strength": 0.5},
        **more,
    }


def test_webuiapi_draws_twice(shim: Shim, api: webuiapi.WebUIApi) -> None:
    made = api.txt2img(
        prompt="x", width=64, height=64, steps=7, enable_hr=True, hr_upscaler="Lanczos", override_settings=FLAT
    )
    assert made.image.size == (128, 128)
    spec = spec_of(shim).hires
    assert (spec.upscaler, spec.width, spec.strength) == ("lanczos", 128, 0.7)
    assert int(spec.steps * spec.strength) == 7, "as many are done as of the first drawing"


@pytest.mark.parametrize(
    ("more", "size", "done"),
    [
        ({}, (128, 128), 4),
        ({"hr_scale": 1.5, "hr_second_pass_steps": 3}, (96, 96), 3),
        ({"hr_resize_x": 128, "hr_resize_y": 128, "denoising_strength": 0.3}, (128, 128), 4),
        ({"hr_resize_x": 192}, (192, 192), 4),
        ({"hr_resize_y": 64, "denoising_strength": 1}, (64, 64), 4),
        ({"hr_checkpoint_name": "Use same checkpoint", "hr_scheduler": "Use same scheduler"}, (128, 128), 4),
    ],
)
def test_its_numbers(shim: Shim, keys: Keys, more: dict[str, Any], size: tuple[int, int], done: int) -> None:
    answer = shim.post(TXT2IMG, keys.user, **hires(**more))
    assert size_of(answer.json()["images"][0]) == size, answer.text
    spec = spec_of(shim).hires
    assert int(spec.steps * spec.strength) == done


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"hr_upscaler": "Latent (antialiased)"}, "hr_upscaler"),
        ({"hr_upscaler": "4x-Nobody"}, "hr_upscaler"),
        ({"hr_sampler_name": "DDIM"}, "hr_sampler_name"),
        ({"hr_prompt": "another"}, "hr_prompt"),
        ({"hr_checkpoint_name": "another"}, "hr_checkpoint_name"),
        ({"hr_resize_x": 128, "hr_resize_y": 64}, "hr_resize_x"),
        ({"hr_resize_x": 32}, "hr_resize_x"),
        ({"hr_scale": 9}, "hr_scale"),
        ({"denoising_strength": 0.01, "steps": 1000}, "hr_second_pass_steps"),
    ],
)
def test_what_is_not_drawn_twice_so_is_refused_by_name(
    shim: Shim, keys: Keys, more: dict[str, Any], named: str
) -> None:
    status, _, detail = told(shim.post(TXT2IMG, keys.user, **hires(**more)))
    assert 400 <= status < 500 and detail.startswith(named), detail


def test_craft_s_own_way(shim: Shim, keys: Keys) -> None:
    sha256 = shim.call("POST", "/inputs", keys.user, data=picture((40, 20))).json()["sha256"]
    asked = {"prompt": "", "start": {"sha256": sha256, "strength": 0}, "upscale": {"model": "lanczos", "scale": 3}}
    made = shim.post("/jobs", keys.user, **asked)
    assert made.status_code == 201 and made.json()["generate"]["model"] == "lanczos", made.text
    job = shim.finish(made.json()["id"])
    assert (job.images[0].width, job.images[0].height) == (120, 60)
    twice = shim.post("/jobs", keys.user, prompt="x", model="flat", hires={"scale": 1.5, "upscaler": "lanczos"})
    assert twice.json()["generate"]["hires"]["strength"] == 0.5
