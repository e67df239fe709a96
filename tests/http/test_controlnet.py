"""Control models, registered and refused, and control pictures over HTTP: jobs of craft's own, and AUTOMATIC1111's."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import requests
import webuiapi
from craft_protos import jobs_pb2
from craftd.worker.inputs import outlines
from PIL import Image

from tests.daemon.safetensors import write_checkpoint
from tests.home import SD1, write_model
from tests.http.drawn_from import GREEN, encoded, kept, picture, sha256_of, spec_of
from tests.http.shim import Keys, Shim, make_keys, serving, told

A, B = picture((64, 32)), picture((32, 64), GREEN)
TXT2IMG, IMG2IMG = "/sdapi/v1/txt2img", "/sdapi/v1/img2img"
MODELS = {
    "my-canny": "control-sd1",
    "my-depth": "control-sd1",
    "xl-canny": "control-sdxl",
    "my-tile": "control-sd1:t2i-adapter",
}


@pytest.fixture(scope="module")
def place() -> Iterator[tuple[Shim, Keys]]:
    """A daemon with a Stable Diffusion 1 and control models: three for it, one for another."""
    with serving() as shim:
        folder = write_model(shim.home.work / "sd", **SD1)
        for name, kind in MODELS.items():
            write_checkpoint(shim.home.work / f"{name}.safetensors", kind, metadata={"of": name})
        for path in (folder, *sorted(shim.home.work.glob("*.safetensors"))):
            added = shim.home.craft("models", "add", str(path))
            assert added.returncode == 0, added.stderr
        yield shim, make_keys(shim)


@pytest.fixture
def shim(place: tuple[Shim, Keys]) -> Shim:
    return place[0]


@pytest.fixture
def keys(place: tuple[Shim, Keys]) -> Keys:
    return place[1]


@pytest.fixture
def api(shim: Shim, keys: Keys) -> Iterator[webuiapi.WebUIApi]:
    at = urlsplit(shim.url)
    made = webuiapi.WebUIApi(host=at.hostname, port=at.port, username="craft", password=keys.user)
    with made.session:
        yield made


def send(shim: Shim, key: str, *units: dict[str, Any], path: str = TXT2IMG, **fields: Any) -> requests.Response:
    body: dict[str, Any] = {
        "prompt": "x",
        "width": 64,
        "height": 64,
        "override_settings": {"sd_model_checkpoint": "sd"},
    }
    return shim.post(path, key, **body | {"alwayson_scripts": {"controlnet": {"args": list(units)}}} | fields)


def job(shim: Shim, key: str, *controls: dict[str, Any], **more: Any) -> requests.Response:
    for data in (A, B):
        shim.call("POST", "/inputs", key, data=data)
    return shim.post("/jobs", key, **{"prompt": "x", "model": "sd", "controls": list(controls)} | more)


def test_the_only_model_for_the_kind_is_taken(shim: Shim, keys: Keys) -> None:
    """And what is left out is filled in, the size after the first picture's shape."""
    made = job(shim, keys.user, {"sha256": sha256_of(A), "kind": "canny"}).json()
    told_spec = made["generate"]
    assert told_spec["controls"] == [
        {"sha256": sha256_of(A), "kind": "canny", "model": "my-canny", "scale": 1, "start": 0, "end": 1, "fit": "crop"}
    ]
    assert told_spec["width"] > told_spec["height"]
    assert shim.finish(made["id"]).state == jobs_pb2.JOB_STATE_SUCCEEDED


def test_controls_are_fitted_as_the_start_is(shim: Shim, keys: Keys) -> None:
    control = {"sha256": sha256_of(B), "model": "my-depth", "end": 0.5}
    start = {"sha256": sha256_of(A), "fit": "fill"}
    (found,) = job(shim, keys.user, control, start=start, width=64, height=64).json()["generate"]["controls"]
    assert (found["fit"], found["model"], found["end"]) == ("fill", "my-depth", 0.5)


@pytest.mark.parametrize(
    ("control", "field", "words"),
    [
        ({}, "controls.model", ("several", "my-canny", "my-depth")),
        ({"kind": "scribble"}, "controls.model", ("none here reads scribble for sd", "my-canny")),
        ({"kind": "depth"}, "controls.kind", ("network", "ready depth map")),
        ({"kind": "wings"}, "controls.kind", ("must be one of", "canny")),
        ({"model": "xl-canny"}, "controls.model", ("Stable Diffusion XL", "Stable Diffusion 1", "my-canny")),
        ({"model": "sd"}, "controls.model", ("no control model", "my-canny")),
        ({"kind": "canny", "start": 0.6, "end": 0.5}, "controls.start", ("not before the end",)),
        ({"kind": "canny", "scale": 11}, "controls.0.scale", ("",)),
    ],
)
def test_what_is_refused(shim: Shim, keys: Keys, control: dict[str, Any], field: str, words: tuple[str, ...]) -> None:
    answer = job(shim, keys.user, {"sha256": sha256_of(A)} | control)
    assert told(answer)[1:] == ("INVALID_FIELD", field), answer.text
    assert all(word in answer.text for word in words), answer.text


def test_an_architecture_without_control_models_says_so(shim: Shim, keys: Keys) -> None:
    answer = job(shim, keys.user, {"sha256": sha256_of(A), "kind": "canny"}, model="flat")
    assert "for flat" in answer.text


def test_a_control_model_is_told_of_and_draws_nothing_alone(shim: Shim) -> None:
    assert "a ControlNet of Stable Diffusion 1, for canny" in shim.home.craft("models", "show", "my-canny").stdout
    refused = shim.home.craft("generate", "x", "-m", "my-canny")
    assert refused.returncode and "nothing is drawn with it alone" in refused.stderr
    assert "--control" in refused.stderr


def test_the_plan_counts_it_and_it_is_unloaded_by_its_name(shim: Shim) -> None:
    """A word of the plan and a command that models have: a control model takes memory as they do."""
    (shim.home.work / "map.png").write_bytes(A)
    asked = ("generate", "x", "-m", "sd", "--plan", "--json")
    alone = json.loads(shim.home.craft(*asked).stdout)
    beside = json.loads(shim.home.craft(*asked, "--control", "none=map.png", "--control-model", "my-tile").stdout)
    own = (shim.home.work / "my-tile.safetensors").stat().st_size
    assert beside["load_bytes"] - alone["load_bytes"] == own
    unloaded = shim.home.craft("models", "unload", "my-tile")
    assert (unloaded.returncode, unloaded.stdout.strip()) == (0, "my-tile"), unloaded.stderr


@pytest.mark.parametrize("kind", ["sd3-control", "flux-control", "union-control", "adapter"])
def test_others_are_refused_by_name(shim: Shim, kind: str) -> None:
    path = write_checkpoint(shim.home.work / f"{kind}.safetensors", kind)
    refused = shim.home.craft("models", "add", str(path))
    assert refused.returncode and "; craft draws with ControlNets of" in refused.stderr


def test_what_webuiapi_sends(shim: Shim, api: webuiapi.WebUIApi) -> None:
    units = [
        webuiapi.ControlNetUnit(Image.open(io.BytesIO(A)), module="canny", model="my-canny [abcdef12]", weight=0.7),
        webuiapi.ControlNetUnit(Image.open(io.BytesIO(B)), model="my-depth", guidance_end=0.8, enabled=True),
        webuiapi.ControlNetUnit(enabled=False),
    ]
    made = api.txt2img(
        prompt="x",
        width=64,
        height=64,
        controlnet_units=units,
        alwayson_scripts={},  # its default is one for all calls
        override_settings={"sd_model_checkpoint": "sd"},
    )
    assert len(made.images) == 1
    one, other = spec_of(shim).controls
    assert (one.kind, one.model, one.scale, one.end) == ("canny", "my-canny", 0.7, 1.0)
    assert (other.kind, other.model, other.scale, other.end) == ("none", "my-depth", 1.0, 0.8)
    assert one.fit == other.fit == jobs_pb2.FIT_FILL
    assert kept(shim, one.sha256).size == (64, 32)
    assert api.controlnet_version() == 2
    assert [name.split()[0] for name in api.controlnet_model_list()] == sorted({*MODELS, "pocket-edges"})
    assert {"none", "canny", "scribble_xdog"} <= set(api.controlnet_module_list())
    types = api.custom_get("controlnet/control_types")["control_types"]
    assert set(types) == {"All", "Canny", "Depth", "Edges", "Tile"}
    assert types["Depth"]["default_option"] == "none" and types["Canny"]["default_option"] == "canny"


def test_a_unit_without_a_picture_reads_the_start(shim: Shim, keys: Keys) -> None:
    unit = {"module": "canny", "resize_mode": 0}
    answer = send(shim, keys.user, unit, path=IMG2IMG, init_images=[encoded(A)])
    assert answer.status_code == 200, answer.text
    spec = spec_of(shim)
    assert spec.controls[0].sha256 == spec.start.sha256 == sha256_of(A)
    assert spec.controls[0].fit == jobs_pb2.FIT_STRETCH
    assert encoded(A) not in answer.text, "what was sent is not sent back"


@pytest.mark.parametrize(
    ("unit", "field"),
    [
        ({"module": "canny"}, "image"),
        ({"image": encoded(A), "module": "openpose_full"}, "module"),
        ({"image": encoded(A), "module": "scribble_hed"}, "module"),
        ({"image": encoded(A), "module": "wings"}, "module"),
        ({"image": encoded(A), "mask": encoded(B)}, "mask"),
        ({"image": {"image": encoded(A), "mask": encoded(B)}}, "mask"),
        ({"image": encoded(A), "control_mode": 2}, "control_mode"),
        ({"image": encoded(A), "hr_option": "Low res only"}, "hr_option"),
        ({"image": encoded(A), "resize_mode": "Elsewhere"}, "resize_mode"),
        ({"image": encoded(A), "weight": "much"}, "weight"),
        ({"image": encoded(b"no picture")}, "image"),
    ],
)
def test_what_is_not_done_is_refused_by_name(shim: Shim, keys: Keys, unit: dict[str, Any], field: str) -> None:
    answer = send(shim, keys.user, {"model": "my-canny"} | unit)
    assert told(answer)[2] == f"alwayson_scripts.controlnet.args[0].{field}", answer.text


def test_other_thresholds_are_told(shim: Shim, keys: Keys) -> None:
    unit = {"image": encoded(A), "module": "canny", "threshold_a": 64, "threshold_b": 64}
    assert "threshold_a" in send(shim, keys.user, unit).headers["x-craft-warning"]


def test_detect_shows_what_a_control_model_would_see(shim: Shim, api: webuiapi.WebUIApi) -> None:
    rng = np.random.default_rng(3)
    pixels = np.kron(rng.integers(0, 255, (6, 8, 3)), np.ones((20, 20, 1), int)).astype(np.uint8)
    (made,) = api.controlnet_detect([Image.fromarray(pixels)], module="canny").images
    assert np.array_equal(np.asarray(made.convert("L")), outlines.canny(pixels))


def test_detect_refuses_by_name(shim: Shim, keys: Keys) -> None:
    for body, field in (
        ({"controlnet_module": "depth_midas", "controlnet_images": [encoded(A)]}, "controlnet_module"),
        ({"controlnet_module": "canny", "controlnet_images": [encoded(b"none")]}, "controlnet_images[0]"),
        ({"controlnet_module": "canny", "controlnet_input_images": [encoded(b"none")]}, "controlnet_input_images[0]"),
        ({"controlnet_module": "canny"}, "controlnet_input_images"),
    ):
        answer = shim.post("/controlnet/detect", keys.user, **body)
        assert told(answer)[2] == field, answer.text


def test_a_public_picture_does_not_tell_its_controls(shim: Shim, keys: Keys) -> None:
    made = job(shim, keys.user, {"sha256": sha256_of(A), "kind": "canny"}, public=True).json()
    done = shim.finish(made["id"])
    assert sha256_of(A) not in shim.image(done.images[0].id).provenance
