"""Chroma is what diffusers' ChromaPipeline draws."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from craft_protos.worker_pb2 import ModelManifest

from tests.matrix import covers
from tests.worker.client import WorkerProcess, pixels
from tests.worker.families import (
    Truth,
    assert_mixed_batch_is_close,
    assert_same,
    assert_third_of_four_is_the_same_alone,
    draw,
)
from tests.worker.loras import Make, diffusers_draws, submit_with

KIND = "chroma"


@pytest.fixture
def model(models: dict[str, ModelManifest]) -> ModelManifest:
    return models[KIND]


@covers("draw", form="folder", kind=KIND)
@pytest.mark.parametrize("sampler", ["", "Euler", "Heun", "DPM++ 2M", "UniPC"])
def test_samplers(worker: WorkerProcess, model: ModelManifest, flow_truth: Truth, sampler: str) -> None:
    assert_same(draw(worker, model, sampler=sampler), flow_truth(KIND, sampler))


@pytest.mark.parametrize(
    "call",
    [
        {"guidance_scale": 0.0},
        {"guidance_scale": 1.0},
        {"guidance_scale": 9.0, "negative_prompt": "a dog"},
        {"negative_prompt": "a dog and another dog, both of them in the snow " * 3},
        {"width": 96, "steps": 7},
        {"prompt": ""},
        {"prompt": "a cat and a dog " * 300},
    ],
    ids=str,
)
def test_what_is_asked(worker: WorkerProcess, model: ModelManifest, flow_truth: Truth, call: dict[str, Any]) -> None:
    """Also nothing, and more words than are read."""
    assert_same(draw(worker, model, **call), flow_truth(KIND, **call))


def test_words_are_heard(worker: WorkerProcess, model: ModelManifest) -> None:
    plain = draw(worker, model)
    assert np.abs(plain - draw(worker, model, prompt="a dog")).max() > 2
    assert np.abs(plain - draw(worker, model, negative_prompt="a dog")).max() > 2


@covers("batch", form="folder", kind=KIND)
def test_mixed_batch_is_close(worker: WorkerProcess, model: ModelManifest, flow_truth: Truth) -> None:
    asked: dict[str, dict[str, Any]] = {
        "a": {"sampler": "Euler", "steps": 5, "negative_prompt": "a dog"},
        "b": {"sampler": "DPM++ 2M", "steps": 7, "guidance_scale": 1.0},
        "c": {"sampler": "UniPC", "steps": 6, "guidance_scale": 9.0, "seed": 99, "prompt": "a dog " * 9},
    }
    assert_mixed_batch_is_close(worker, model, flow_truth, KIND, asked)


def test_third_image_of_four_alone_is_the_same(worker: WorkerProcess, model: ModelManifest) -> None:
    assert_third_of_four_is_the_same_alone(worker, model)


@covers("LoRA", form="folder", kind=KIND)
def test_a_lora_is_what_diffusers_makes_of_it(
    worker: WorkerProcess, model: ModelManifest, make: Make, pipelines: Any, flow_truth: Truth
) -> None:
    lora = make(KIND, "it", seed=61)
    expected = diffusers_draws(pipelines(KIND), [(lora, 0.8)], flow_truth, KIND)
    (image,) = worker.draw(submit_with(model, [(lora, 0.8)], "with"))
    assert np.abs(pixels(image) - expected).max() <= 2
    assert np.abs(expected - flow_truth(KIND)).max() > 4, "a LoRA that changes nothing proves nothing"
    assert_same(draw(worker, model), flow_truth(KIND))
