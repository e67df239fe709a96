"""SDXL is what diffusers' StableDiffusionXLPipeline draws."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from craft_protos.worker_pb2 import ModelManifest

from tests.matrix import covers
from tests.worker.client import WorkerProcess, submit
from tests.worker.families import (
    Truth,
    assert_mixed_batch_is_close,
    assert_same,
    assert_third_of_four_is_the_same_alone,
    draw,
)


@pytest.fixture
def sdxl(models: dict[str, ModelManifest]) -> ModelManifest:
    return models["sdxl"]


@covers("draw", form="folder", kind="sdxl")
@pytest.mark.parametrize("sampler", ["", "Euler", "Euler a", "DPM++ 2M Karras", "DPM2", "DDIM", "Heun", "LCM"])
def test_samplers(worker: WorkerProcess, sdxl: ModelManifest, truth: Truth, sampler: str) -> None:
    assert_same(draw(worker, sdxl, sampler=sampler), truth("sdxl", sampler))


@pytest.mark.parametrize("sampler", ["Euler", "DPM++ 2M"])
@pytest.mark.parametrize("guidance", [0.0, 1.0, 7.5])
def test_guidance_on_and_off(
    worker: WorkerProcess, sdxl: ModelManifest, truth: Truth, guidance: float, sampler: str
) -> None:
    drawn = draw(worker, sdxl, guidance_scale=guidance, sampler=sampler)
    assert_same(drawn, truth("sdxl", sampler, guidance_scale=guidance))


@pytest.mark.parametrize(("width", "height"), [(64, 96), (128, 64), (72, 200)])
def test_sizes(worker: WorkerProcess, sdxl: ModelManifest, truth: Truth, width: int, height: int) -> None:
    size = {"width": width, "height": height}
    assert_same(draw(worker, sdxl, **size), truth("sdxl", **size))


def test_negative_prompt(worker: WorkerProcess, sdxl: ModelManifest, truth: Truth) -> None:
    drawn = draw(worker, sdxl, negative_prompt="a dog, blurred")
    assert_same(drawn, truth("sdxl", negative_prompt="a dog, blurred"))
    assert np.abs(drawn - truth("sdxl")).max() > 1


def test_a_model_whose_empty_negative_is_encoded(
    worker: WorkerProcess, models: dict[str, ModelManifest], truth: Truth
) -> None:
    drawn = draw(worker, models["sdxl-plain"])
    assert_same(drawn, truth("sdxl-plain"))
    assert np.abs(drawn - truth("sdxl")).max() > 1


def test_third_image_of_four_alone_is_the_same(worker: WorkerProcess, sdxl: ModelManifest) -> None:
    assert_third_of_four_is_the_same_alone(worker, sdxl, sampler="Euler a")


@covers("batch", form="folder", kind="sdxl")
def test_mixed_batch_is_close(worker: WorkerProcess, sdxl: ModelManifest, truth: Truth) -> None:
    asked: dict[str, dict[str, Any]] = {
        "a": {"sampler": "Euler", "steps": 5},
        "b": {"sampler": "DPM++ 2M Karras", "steps": 7, "guidance_scale": 1.0},
        "c": {"sampler": "Euler a", "steps": 6, "guidance_scale": 9.0, "seed": 99},
        "d": {"sampler": "Heun", "steps": 3, "negative_prompt": "a dog"},
    }
    assert_mixed_batch_is_close(worker, sdxl, truth, "sdxl", asked)


def test_long_prompts_and_weights_change_the_picture(worker: WorkerProcess, sdxl: ModelManifest, truth: Truth) -> None:
    start = "a red cat " * 30  # more than one call of a text encoder takes
    drawn = draw(worker, sdxl, prompt=start + "dog " * 40, guidance_scale=15.0)
    assert np.abs(drawn - draw(worker, sdxl, prompt=start + "red " * 40, guidance_scale=15.0)).max() > 1
    assert np.abs(draw(worker, sdxl, prompt="a (red:40) cat") - truth("sdxl")).max() > 1


def test_previews(worker: WorkerProcess, sdxl: ModelManifest) -> None:
    worker.draw(submit(sdxl, steps=6, preview_every=2))
    previews = [frame.step.preview for frame in worker.seen if frame.WhichOneof("frame") == "step"]
    assert any(preview.startswith(b"\xff\xd8") for preview in previews)
