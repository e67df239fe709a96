"""Stable Diffusion 3 is what diffusers' StableDiffusion3Pipeline draws."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from craft_protos.generate import TextSpec
from craft_protos.worker_pb2 import ModelManifest
from craftd.worker.families.sd3 import StableDiffusion3

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
def sd3(models: dict[str, ModelManifest]) -> ModelManifest:
    return models["sd3"]


@covers("draw", form="folder", kind="sd3")
@pytest.mark.parametrize("sampler", ["", "Euler", "Heun", "DPM++ 2M", "DPM++ 2S", "UniPC"])
def test_samplers(worker: WorkerProcess, sd3: ModelManifest, truth: Truth, sampler: str) -> None:
    assert_same(draw(worker, sd3, sampler=sampler), truth("sd3", sampler))


@pytest.mark.parametrize("sampler", ["Euler", "Heun"])
@pytest.mark.parametrize("guidance", [0.0, 1.0, 7.0])
def test_guidance_on_and_off(
    worker: WorkerProcess, sd3: ModelManifest, truth: Truth, guidance: float, sampler: str
) -> None:
    drawn = draw(worker, sd3, guidance_scale=guidance, sampler=sampler)
    assert_same(drawn, truth("sd3", sampler, guidance_scale=guidance))


@pytest.mark.parametrize(("width", "height"), [(64, 96), (128, 64), (80, 208)])
def test_sizes(worker: WorkerProcess, sd3: ModelManifest, truth: Truth, width: int, height: int) -> None:
    size = {"width": width, "height": height}
    assert_same(draw(worker, sd3, **size), truth("sd3", **size))


def test_negative_prompt(worker: WorkerProcess, sd3: ModelManifest, truth: Truth) -> None:
    drawn = draw(worker, sd3, negative_prompt="a dog, blurred")
    assert_same(drawn, truth("sd3", negative_prompt="a dog, blurred"))
    assert np.abs(drawn - truth("sd3")).max() > 1


@pytest.mark.parametrize("guidance", [1.0, 6.0])
def test_a_model_without_t5(
    worker: WorkerProcess, models: dict[str, ModelManifest], truth: Truth, guidance: float
) -> None:
    assert_same(draw(worker, models["sd3-no-t5"], guidance_scale=guidance), truth("sd3-no-t5", guidance_scale=guidance))


def test_samplers_that_do_not_match_flows_are_refused(worker: WorkerProcess, sd3: ModelManifest) -> None:
    failed = worker.fail(submit(sd3, sampler="Euler a"))
    assert failed.error.reason == "INVALID_FIELD"
    assert "Euler, Heun, DPM++ 2M, DPM++ 2S, UniPC" in failed.error.hint


def test_third_image_of_four_alone_is_the_same(worker: WorkerProcess, sd3: ModelManifest) -> None:
    assert_third_of_four_is_the_same_alone(worker, sd3)


@covers("batch", form="folder", kind="sd3")
def test_mixed_batch_is_close(worker: WorkerProcess, sd3: ModelManifest, truth: Truth) -> None:
    asked: dict[str, dict[str, Any]] = {
        "a": {"sampler": "Euler", "steps": 5},
        "b": {"sampler": "DPM++ 2M", "steps": 7, "guidance_scale": 1.0},
        "c": {"sampler": "UniPC", "steps": 6, "guidance_scale": 9.0, "seed": 99},
        "d": {"sampler": "Heun", "steps": 3, "negative_prompt": "a dog"},
    }
    assert_mixed_batch_is_close(worker, sd3, truth, "sd3", asked)


def test_weights_reach_clip_and_not_t5(pipelines: Callable[[str], Any]) -> None:
    family = StableDiffusion3(pipelines("sd3"), torch.device("cpu"))
    with torch.inference_mode():
        plain, weighted = (family.encode(TextSpec(text)).positive for text in ("a red cat", "a (red:1.5) cat"))
    assert not torch.equal(plain[:, :77], weighted[:, :77])
    assert torch.equal(plain[:, 77:], weighted[:, 77:])


def test_long_prompts_and_negatives_take_as_many_tokens(pipelines: Callable[[str], Any]) -> None:
    family = StableDiffusion3(pipelines("sd3"), torch.device("cpu"))
    with torch.inference_mode():
        encoded = family.encode(TextSpec("a red cat " * 30, "a dog", 7.0))
    assert encoded.negative is not None
    assert encoded.positive.shape == encoded.negative.shape == (1, 2 * 77 + 256, 96)


def test_long_prompts_change_the_picture(worker: WorkerProcess, sd3: ModelManifest) -> None:
    start = "a red cat " * 30  # more than one call of a CLIP encoder takes
    drawn = draw(worker, sd3, prompt=start + "dog " * 40, guidance_scale=15.0)
    assert np.abs(drawn - draw(worker, sd3, prompt=start + "red " * 40, guidance_scale=15.0)).max() > 1
