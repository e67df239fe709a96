"""Z-Image, FLUX.2 klein, Qwen-Image and Krea 2 are what diffusers' own pipelines draw."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from craft_protos.worker_pb2 import ModelManifest

from tests.matrix import covers
from tests.worker.client import WorkerProcess, pixels, submit
from tests.worker.families import (
    Truth,
    assert_mixed_batch_is_close,
    assert_same,
    assert_third_of_four_is_the_same_alone,
    draw,
)
from tests.worker.flows import KINDS, NEVER_GUIDED

of_every_kind = pytest.mark.parametrize("kind", KINDS)
Models = dict[str, ModelManifest]


@covers("draw", form="folder", kind="kind")
@of_every_kind
@pytest.mark.parametrize("sampler", ["", "Euler", "Heun", "DPM++ 2M", "DPM++ 2S", "UniPC"])
def test_samplers(worker: WorkerProcess, models: Models, flow_truth: Truth, kind: str, sampler: str) -> None:
    assert_same(draw(worker, models[kind], sampler=sampler), flow_truth(kind, sampler))


@of_every_kind
@pytest.mark.parametrize("steps", [1, 2, 9])
def test_steps(worker: WorkerProcess, models: Models, flow_truth: Truth, kind: str, steps: int) -> None:
    if (kind, steps) == ("qwen-image", 1):  # whose schedule is stretched to its end, by the length that it has
        failed = worker.fail(submit(models[kind], steps=1))
        assert (failed.error.reason, failed.error.message[:6]) == ("INVALID_FIELD", "steps:")
        return
    assert_same(draw(worker, models[kind], steps=steps), flow_truth(kind, steps=steps))


@of_every_kind
@pytest.mark.parametrize("guidance", [0.0, 0.7, 1.0, 9.0])
def test_guidance(worker: WorkerProcess, models: Models, flow_truth: Truth, kind: str, guidance: float) -> None:
    assert_same(draw(worker, models[kind], guidance_scale=guidance), flow_truth(kind, guidance_scale=guidance))


@of_every_kind
def test_guidance_that_is_none_makes_no_second_row(worker: WorkerProcess, models: Models, kind: str) -> None:
    """Then a negative prompt does nothing, either."""
    call = {"guidance_scale": NEVER_GUIDED[kind]}
    assert np.array_equal(
        draw(worker, models[kind], negative_prompt="a dog", **call), draw(worker, models[kind], **call)
    )


@of_every_kind
@pytest.mark.parametrize("negative", ["a dog", "a dog and another dog, both of them in the snow " * 3])
def test_negative_prompts(worker: WorkerProcess, models: Models, flow_truth: Truth, kind: str, negative: str) -> None:
    """Also ones of another length than the prompt."""
    drawn = draw(worker, models[kind], negative_prompt=negative)
    assert_same(drawn, flow_truth(kind, negative_prompt=negative))
    assert np.abs(drawn - draw(worker, models[kind])).max() > 2


@of_every_kind
@pytest.mark.parametrize("sides", [(64, 96), (128, 64), (80, 208)], ids=str)
def test_sizes(worker: WorkerProcess, models: Models, flow_truth: Truth, kind: str, sides: tuple[int, int]) -> None:
    size = dict(zip(("width", "height"), sides, strict=True))
    assert_same(draw(worker, models[kind], **size), flow_truth(kind, **size))


@of_every_kind
def test_sides_are_multiples_of_a_token(worker: WorkerProcess, models: Models, kind: str) -> None:
    failed = worker.fail(submit(models[kind], width=72))
    assert (failed.error.reason, failed.error.hint) == ("INVALID_FIELD", "take 64x64")


@of_every_kind
def test_long_prompts(worker: WorkerProcess, models: Models, flow_truth: Truth, kind: str) -> None:
    """Longer than is read of them, too."""
    prompt = "a red cat and a dog " * 60
    assert_same(draw(worker, models[kind], prompt=prompt), flow_truth(kind, prompt=prompt))


@of_every_kind
def test_third_image_of_four_alone_is_the_same(worker: WorkerProcess, models: Models, kind: str) -> None:
    assert_third_of_four_is_the_same_alone(worker, models[kind])


@covers("batch", form="folder", kind="kind")
@of_every_kind
def test_mixed_batch_is_close(worker: WorkerProcess, models: Models, flow_truth: Truth, kind: str) -> None:
    """Rows of other prompts, of other lengths, with guidance and without it share their calls."""
    asked: dict[str, dict[str, Any]] = {
        "a": {"sampler": "Euler", "steps": 5},
        "b": {"sampler": "DPM++ 2M", "steps": 7, "guidance_scale": NEVER_GUIDED[kind]},
        "c": {"sampler": "UniPC", "steps": 6, "guidance_scale": 9.0, "seed": 99, "negative_prompt": "a dog " * 9},
        "d": {"sampler": "Euler", "steps": 3, "prompt": "a dog that is in the snow, " * 4},
    }
    assert_mixed_batch_is_close(worker, models[kind], flow_truth, kind, asked)


@of_every_kind
def test_pictures_of_one_area_and_two_shapes_do_not_share_a_call(
    worker: WorkerProcess, models: Models, flow_truth: Truth, kind: str
) -> None:
    wide, high = {"width": 128, "height": 64}, {"width": 64, "height": 128}
    images = worker.draw(submit(models[kind], "high", **high), submit(models[kind], "wide", **wide))
    assert [(image.width, image.height) for image in images] == [(64, 128), (128, 64)]
    for image, size in zip(images, (high, wide), strict=True):
        assert_same(pixels(image), flow_truth(kind, **size))


@of_every_kind
def test_previews(worker: WorkerProcess, models: Models, kind: str) -> None:
    worker.draw(submit(models[kind], steps=6, preview_every=2, sampler="DPM++ 2M"))
    previews = [frame.step.preview for frame in worker.seen if frame.WhichOneof("frame") == "step"]
    assert any(preview.startswith(b"\xff\xd8") for preview in previews)


@of_every_kind
def test_weights_and_what_is_not_read_are_said(worker: WorkerProcess, models: Models, kind: str) -> None:
    worker.draw(submit(models[kind], prompt="a (red:1.4) cat " + "and a dog " * 200))
    notice = next(frame.started.notice for frame in worker.seen if frame.HasField("started"))
    assert "the prompt's weights are words" in notice
    assert "tokens, which leaves out" in notice


@of_every_kind
def test_a_negative_prompt_without_guidance_is_said(worker: WorkerProcess, models: Models, kind: str) -> None:
    worker.draw(submit(models[kind], negative_prompt="a dog", guidance_scale=NEVER_GUIDED[kind]))
    notice = next(frame.started.notice for frame in worker.seen if frame.HasField("started"))
    assert "the negative prompt does nothing" in notice


@of_every_kind
@pytest.mark.parametrize("sampler", ["Euler a", "DDIM", "DPM++ 2M Karras", "LCM"])
def test_samplers_that_do_not_match_flows_are_refused(
    worker: WorkerProcess, models: Models, kind: str, sampler: str
) -> None:
    failed = worker.fail(submit(models[kind], sampler=sampler))
    assert failed.error.reason == "INVALID_FIELD"
    assert "Euler, Heun, DPM++ 2M, DPM++ 2S, UniPC" in failed.error.hint


@pytest.mark.parametrize(
    ("kind", "call"),
    [
        ("z-image-turbo", {"steps": 8, "guidance_scale": 0.0}),
        ("flux2-distilled", {"steps": 4, "guidance_scale": 1.0}),
        ("flux2-distilled", {"steps": 4, "guidance_scale": 4.0}),
        ("krea2-distilled", {"steps": 8, "guidance_scale": 0.0}),
        ("krea2-distilled", {"steps": 8, "guidance_scale": 2.0}),
    ],
)
def test_models_that_were_distilled(
    worker: WorkerProcess, models: Models, flow_truth: Truth, kind: str, call: dict[str, Any]
) -> None:
    """Schedules of their own; FLUX.2 then has no guidance."""
    assert_same(draw(worker, models[kind], **call), flow_truth(kind, **call))


def test_guidance_that_does_nothing_is_said(worker: WorkerProcess, models: Models) -> None:
    worker.draw(submit(models["flux2-distilled"], guidance_scale=4.0))
    notice = next(frame.started.notice for frame in worker.seen if frame.HasField("started"))
    assert "the guidance scale of 4 does nothing" in notice


def test_a_distilled_flux2_takes_no_negative_prompt(worker: WorkerProcess, models: Models) -> None:
    failed = worker.fail(submit(models["flux2-distilled"], negative_prompt="a dog"))
    assert (failed.error.reason, "distilled" in failed.error.message) == ("INVALID_FIELD", True)
