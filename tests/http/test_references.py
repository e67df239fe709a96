"""Pictures that a model is shown, over HTTP: OpenAI's edit with a model that edits, and jobs of craft's own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest
import requests

from tests.home import KLEIN, write_model
from tests.http.drawn_from import GREEN, RED, half_clear, kept, picture, sha256_of, spec_of
from tests.http.shim import Keys, Shim, make_keys, serving, told

EDITS = "/v1/images/edits"
A, B = picture((64, 32)), picture((32, 64), GREEN)


@pytest.fixture(scope="module")
def place() -> Iterator[tuple[Shim, Keys]]:
    """A daemon with models of both kinds: `klein` is shown pictures, `kontext` one, `flat` begins from one."""
    with serving() as shim:
        for name, more in (("klein", {}), ("kontext", {"pipeline": "FluxKontextPipeline"})):
            folder = write_model(shim.home.work / name, **(KLEIN | more))
            added = shim.home.craft("models", "add", str(folder), "--name", name)
            assert added.returncode == 0, added.stderr
        yield shim, make_keys(shim)


@pytest.fixture
def shim(place: tuple[Shim, Keys]) -> Shim:
    return place[0]


@pytest.fixture
def keys(place: tuple[Shim, Keys]) -> Keys:
    return place[1]


@pytest.fixture
def client(shim: Shim, keys: Keys) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{shim.url}/v1", api_key=keys.user, max_retries=0) as one:
        yield one


def shown(shim: Shim) -> list[str]:
    return [one.sha256 for one in spec_of(shim).references]


def form(shim: Shim, key: str, images: list[bytes], path: str = EDITS, **fields: Any) -> requests.Response:
    files = [("image[]", (f"{number}.png", data)) for number, data in enumerate(images)]
    return shim.call("POST", path, key, files=files, data={"prompt": "x", "size": "64x64", **fields})


def test_an_edit_shows_the_model_its_images_in_their_order(shim: Shim, client: openai.OpenAI) -> None:
    for images in ([A, B], [B, A], [A, A, B], [A]):
        made = client.images.edit(image=images, prompt="both", model="klein", size="64x64", input_fidelity="high")  # type: ignore[arg-type]
        assert made.data is not None
        assert shown(shim) == [sha256_of(one) for one in images]
        assert not spec_of(shim).HasField("start")


def test_a_mask_keeps_the_rest_of_the_first(shim: Shim, client: openai.OpenAI) -> None:
    client.images.edit(image=[A, B], mask=half_clear((64, 32)), prompt="x", model="klein")
    spec = spec_of(shim)
    assert (spec.start.sha256, spec.start.strength, shown(shim)) == (sha256_of(A), 1.0, [sha256_of(A), sha256_of(B)])
    assert kept(shim, spec.mask.sha256).getpixel((8, 8)) == 255
    assert (spec.width, spec.height) == (64, 32)


def test_the_size_follows_from_the_first(shim: Shim, keys: Keys) -> None:
    plans = []
    for model, first in (("klein", A), ("klein", B), ("kontext", A)):
        sha256 = shim.call("POST", "/inputs", keys.user, data=first).json()["sha256"]
        made = shim.post("/jobs", keys.user, prompt="x", model=model, references=[{"sha256": sha256}])
        assert made.status_code == 201, made.text
        spec = made.json()["generate"]
        plans.append((spec["width"], spec["height"]))
        shim.finish(made.json()["id"])
    assert plans == [(1456, 720), (720, 1456), (1456, 720)]


def test_one_that_is_shown_nothing_begins_from_the_image(shim: Shim, keys: Keys) -> None:
    assert form(shim, keys.user, [A], model="flat").status_code == 200
    assert spec_of(shim).start.sha256 == sha256_of(A) and shown(shim) == []


@pytest.mark.parametrize(
    ("images", "fields", "says"),
    [
        ([A, B], {"model": "flat"}, "are 2; the model takes 1"),
        ([A, B], {"model": "kontext"}, "are 2; the model takes 1"),
        ([A] * 17, {"model": "klein"}, "are 17; the model takes 16"),
        ([A], {"model": "klein", "strength": 0.5}, "strength: means nothing to a model that is shown the images"),
        ([A], {"model": "klein", "mask_blur": 2}, "mask_blur: is of a mask"),
        ([A], {"model": "klein", "prompt": ""}, "prompt: is empty"),
        ([], {"model": "klein"}, "image: is missing"),
    ],
)
def test_what_is_refused(shim: Shim, keys: Keys, images: list[bytes], fields: dict[str, Any], says: str) -> None:
    answer = (
        form(shim, keys.user, images, **fields)
        if images
        else shim.call(
            "POST", EDITS, keys.user, files={"mask": ("m.png", half_clear())}, data={"prompt": "x", **fields}
        )
    )
    assert answer.status_code in (400, 422) and says in answer.text


def test_a_refusal_names_kinds_that_are_shown_several(shim: Shim, keys: Keys) -> None:
    hint = form(shim, keys.user, [A, B], model="flat").text
    assert "FLUX.2" in hint and "Kontext" not in hint


def test_variations_begin_from_the_image(shim: Shim, keys: Keys) -> None:
    assert form(shim, keys.user, [A], "/v1/images/variations", model="klein", prompt="").status_code == 200
    assert spec_of(shim).start.sha256 == sha256_of(A) and shown(shim) == []


def test_a_job_names_what_its_owner_has(shim: Shim, keys: Keys) -> None:
    """Nobody else's, and no model that is shown none."""
    sha256 = shim.call("POST", "/inputs", keys.user, data=picture((48, 48), RED)).json()["sha256"]
    asked: dict[str, Any] = {"prompt": "x", "references": [{"sha256": sha256}], "width": 64, "height": 64}
    made = shim.post("/jobs", keys.user, model="klein", **asked)
    assert made.status_code == 201 and made.json()["generate"]["references"] == [{"sha256": sha256}]
    assert shim.finish(made.json()["id"]).generate.references[0].sha256 == sha256
    others = told(shim.post("/jobs", keys.other, model="klein", **asked))
    nobodys = told(shim.post("/jobs", keys.other, model="klein", **(asked | {"references": [{"sha256": "ab" * 32}]})))
    assert others[0] == nobodys[0] == 404 and others[1] == nobodys[1] == "UNKNOWN_INPUT"
    status, reason, field = told(shim.post("/jobs", keys.user, model="flat", **asked))
    assert (status, reason, field) == (422, "INVALID_FIELD", "references")
