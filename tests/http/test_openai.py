"""OpenAI's own package against craft: only the base URL and the key are changed."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator

import openai
import pytest
from craft_protos import jobs_pb2
from PIL import Image

from tests.home import HANG_S
from tests.http.shim import LORA, Keys, Shim


@pytest.fixture
def client(shim: Shim, keys: Keys) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{shim.url}/v1", api_key=keys.user, max_retries=0) as one:
        yield one


def opened(encoded: str | None) -> Image.Image:
    assert encoded
    picture = Image.open(io.BytesIO(base64.b64decode(encoded, validate=True)), formats=["PNG", "JPEG", "WEBP"])
    picture.load()
    return picture


def test_models(client: openai.OpenAI) -> None:
    assert [one.id for one in client.models.list()] == ["pocket", "flat"]
    assert client.models.retrieve("flat").owned_by == "craft"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("flatt")


def test_pictures(client: openai.OpenAI) -> None:
    made = client.images.generate(prompt="a red apple", model="flat", n=2, size="128x64")
    assert made.data is not None and [opened(one.b64_json).size for one in made.data] == [(128, 64)] * 2
    assert (made.size, made.output_format, made.background) == ("128x64", "png", "opaque") and made.created > 0
    assert made.data[0].b64_json != made.data[1].b64_json


def test_everything_that_is_said_counts(shim: Shim, client: openai.OpenAI) -> None:
    own = {
        "negative_prompt": "blurry",
        "num_inference_steps": 7,
        "guidance_scale": 3.5,
        "seed": 42,
        "loras": [{"lora": LORA, "weight": 0.5}],
    }
    made = client.images.generate(
        prompt="a red apple",
        model="pocket",
        quality="hd",
        background="opaque",
        moderation="low",
        style="vivid",
        user="somebody",
        output_format="webp",
        extra_body=own,
    )
    assert made.data is not None and opened(made.data[0].b64_json).format == "WEBP"
    spec = shim.newest().generate
    assert (spec.negative_prompt, spec.steps, spec.guidance_scale, spec.seed) == ("blurry", 7, 3.5, 42)
    assert (spec.loras[0].name, spec.loras[0].weight) == (LORA, 0.5)


@pytest.mark.parametrize(("quality", "steps"), [("auto", 20), ("medium", 20), ("low", 10), ("high", 30), ("hd", 30)])
def test_quality_is_a_number_of_steps(shim: Shim, client: openai.OpenAI, quality: str, steps: int) -> None:
    usual = shim.call("GET", "/choices", client.api_key).json()["models"][1]["defaults"]["steps"]
    client.images.generate(prompt="x", model="flat", quality=quality)  # type: ignore[call-overload]
    assert shim.newest().generate.steps == round(usual * steps / 20)


def test_urls_are_public(shim: Shim, client: openai.OpenAI) -> None:
    made = client.images.generate(prompt="x", model="flat", response_format="url")
    assert made.data is not None and made.data[0].url is not None
    answer = shim.session.get(made.data[0].url, timeout=HANG_S)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    again = shim.session.get(made.data[0].url, timeout=HANG_S, headers={"if-none-match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("output_format", ["jpeg", "webp"])
def test_compression(client: openai.OpenAI, output_format: str) -> None:
    """The picture is encoded again, and still says what it was made from."""
    made = client.images.generate(
        prompt="x",
        model="flat",
        output_format=output_format,  # type: ignore[arg-type]
        output_compression=10,
        extra_body={"seed": 5},
    )
    assert made.data is not None
    picture = opened(made.data[0].b64_json)
    assert picture.format == output_format.upper()
    assert b'"seed": 5' in picture.getexif().get_ifd(0x8769)[0x9286]


def test_prompts_that_a_jpeg_has_no_room_for(client: openai.OpenAI) -> None:
    """As its metadata, where they are escaped; the limit is the same whether the picture is stored so or made so."""
    for compression in (openai.omit, 50):
        with pytest.raises(openai.UnprocessableEntityError) as caught:
            client.images.generate(
                prompt="é" * 10_000, model="flat", output_format="jpeg", output_compression=compression
            )
        assert (caught.value.code, caught.value.param) == ("INVALID_FIELD", "prompt")
    made = client.images.generate(
        prompt="é" * 9_000, model="flat", output_format="jpeg", output_compression=50, extra_body={"seed": 5}
    )
    assert made.data is not None and opened(made.data[0].b64_json).format == "JPEG"


def test_streams(shim: Shim, client: openai.OpenAI) -> None:
    stream = client.images.generate(
        prompt="[slow] x", model="flat", stream=True, partial_images=2, extra_body={"num_inference_steps": 30}
    )
    events = list(stream)
    kinds = [event.type for event in events]
    assert kinds[-1] == "image_generation.completed" and set(kinds[:-1]) == {"image_generation.partial_image"}
    assert 1 <= len(kinds[:-1]) <= 2
    assert [event.partial_image_index for event in events[:-1]] == list(range(len(kinds) - 1))  # type: ignore[union-attr]
    assert all(opened(event.b64_json).format == "JPEG" for event in events[:-1])
    last = opened(events[-1].b64_json)
    assert (last.format, last.size) == ("PNG", (64, 64))
    assert events[-1].usage.total_tokens == 0  # type: ignore[union-attr]


def test_a_stream_of_several(client: openai.OpenAI) -> None:
    stream = client.images.generate(prompt="x", model="flat", n=3, stream=True)
    assert [event.type for event in stream] == ["image_generation.completed"] * 3


def test_errors_in_a_stream(shim: Shim, client: openai.OpenAI) -> None:
    with pytest.raises(openai.UnprocessableEntityError):
        client.images.generate(prompt="", model="flat", stream=True)
    stream = client.images.generate(prompt="[slow] [fail] x", model="flat", stream=True)
    with pytest.raises(openai.APIError, match="failed on request"):
        list(stream)
    assert shim.newest().state == jobs_pb2.JOB_STATE_FAILED


def test_leaving_a_stream_cancels(shim: Shim, client: openai.OpenAI) -> None:
    stream = client.images.generate(
        prompt="[slow] x", model="flat", stream=True, partial_images=3, extra_body={"num_inference_steps": 80}
    )
    with stream:
        assert next(iter(stream)).type == "image_generation.partial_image"
    assert shim.finish(shim.newest().id).state == jobs_pb2.JOB_STATE_CANCELLED


def test_error_classes(shim: Shim, keys: Keys, client: openai.OpenAI) -> None:
    def draw(key: str = keys.user, **fields: object) -> openai.APIStatusError:
        asked = {"prompt": "x", "model": "flat"} | fields
        with pytest.raises(openai.APIStatusError) as caught:
            client.with_options(api_key=key).images.generate(**asked)  # type: ignore[call-overload]
        assert caught.value.request_id
        return caught.value

    assert isinstance(draw("wrong"), openai.AuthenticationError)
    assert isinstance(draw(keys.suspended), openai.PermissionDeniedError)
    unknown = draw(model="gpt-image-1")
    assert isinstance(unknown, openai.NotFoundError) and unknown.code == "UNKNOWN_MODEL"
    bad = draw(n=11)
    assert isinstance(bad, openai.UnprocessableEntityError)
    assert (bad.code, bad.param, bad.type) == ("INVALID_FIELD", "n", "invalid_request_error")
    failed = draw(prompt="[fail] x")
    assert isinstance(failed, openai.InternalServerError) and failed.code == "JOB_FAILED"
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        client.images.edit(image=b"", prompt="x", model="flat")
    assert (caught.value.code, caught.value.param) == ("BAD_INPUT", "image")


async def test_the_asynchronous_client(shim: Shim, keys: Keys) -> None:
    async with openai.AsyncOpenAI(base_url=f"{shim.url}/v1", api_key=keys.user) as client:
        stream = await client.images.generate(prompt="x", model="flat", stream=True, partial_images=0)
        assert [event.type async for event in stream] == ["image_generation.completed"]
