"""craft's image is the diffusers pipeline's: at most 1/255 anywhere, alone in the batch, fp32 on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusers
import numpy as np
import pytest
from craft_protos.samplers import SAMPLERS
from craft_protos.worker_pb2 import ModelManifest
from craftd.worker.families.samplers import RECIPES

from tests.matrix import covers
from tests.worker.client import WorkerProcess, pixels, provenance, submit

Truth = Callable[..., np.ndarray]


def _assert_same(drawn: np.ndarray, expected: np.ndarray) -> None:
    assert drawn.shape == expected.shape
    assert np.ptp(expected) > 20, "a flat picture proves nothing"
    assert np.abs(drawn - expected).max() <= 1


def _drawn(worker: WorkerProcess, model: ModelManifest, **spec: Any) -> np.ndarray:
    (image,) = worker.draw(submit(model, **spec))
    return pixels(image)


@covers("draw", form="folder", kind="sd")
@pytest.mark.parametrize("sampler", ["", *(name for name in SAMPLERS if hasattr(diffusers, RECIPES[name][0]))])
def test_every_sampler(worker: WorkerProcess, sd: ModelManifest, truth: Truth, sampler: str) -> None:
    """Those that diffusers has: the others are in test_own_samplers.py."""
    _assert_same(_drawn(worker, sd, sampler=sampler, steps=6), truth(sampler=sampler, steps=6))


@pytest.mark.parametrize("sampler", ["DPM++ SDE", "Heun", "LMS", "PNDM", "DPM2 a", "UniPC"])
@pytest.mark.parametrize("steps", [1, 2, 3, 7])
def test_few_and_odd_steps(worker: WorkerProcess, sd: ModelManifest, truth: Truth, sampler: str, steps: int) -> None:
    _assert_same(_drawn(worker, sd, sampler=sampler, steps=steps), truth(sampler=sampler, steps=steps))


@pytest.mark.parametrize(("width", "height"), [(64, 96), (128, 64), (72, 200)])
def test_sizes(worker: WorkerProcess, sd: ModelManifest, truth: Truth, width: int, height: int) -> None:
    size = {"width": width, "height": height}
    _assert_same(_drawn(worker, sd, **size), truth(**size))


@pytest.mark.parametrize("guidance", [0.0, 1.0, 1.5, 12.0])
def test_guidance_on_and_off(worker: WorkerProcess, sd: ModelManifest, truth: Truth, guidance: float) -> None:
    _assert_same(_drawn(worker, sd, guidance_scale=guidance), truth(guidance_scale=guidance))


def test_negative_prompt(worker: WorkerProcess, sd: ModelManifest, truth: Truth) -> None:
    drawn = _drawn(worker, sd, negative_prompt="a dog, blurred")
    _assert_same(drawn, truth(negative_prompt="a dog, blurred"))
    assert np.abs(drawn - truth()).max() > 1


@covers("draw", form="folder", kind="sd-text-time")
@pytest.mark.parametrize("kind", ["sd-tiny-vae", "sd-text-time"])
@pytest.mark.parametrize("guidance", [1.0, 6.0])
def test_tiny_autoencoder_and_text_in_time(
    worker: WorkerProcess, models: dict[str, ModelManifest], truth: Truth, kind: str, guidance: float
) -> None:
    _assert_same(_drawn(worker, models[kind], guidance_scale=guidance), truth(kind, guidance_scale=guidance))


def test_third_image_of_four_alone_is_the_same(worker: WorkerProcess, sd: ModelManifest) -> None:
    third = worker.draw(submit(sd, indices=(0, 1, 2, 3), sampler="Euler a"))[2]
    assert (third.index, third.seed, provenance(third)["seed"]) == (2, 9, 9)
    alone = _drawn(worker, sd, seed=third.seed, sampler="Euler a")
    assert np.abs(alone - pixels(third)).max() <= 1


@covers("batch", form="folder", kind="sd")
def test_mixed_batch_is_close(worker: WorkerProcess, sd: ModelManifest, truth: Truth) -> None:
    """Rows of one batch differ from rows alone in the last bits only: at most 2/255 in fp32."""
    asked: dict[str, dict[str, Any]] = {
        "a": {"sampler": "Euler", "steps": 5},
        "b": {"sampler": "DPM++ 2M Karras", "steps": 7, "guidance_scale": 1.0},
        "c": {"sampler": "Euler a", "steps": 6, "guidance_scale": 9.0, "seed": 99},
        "d": {"sampler": "Heun", "steps": 3, "negative_prompt": "a dog"},
    }
    images = worker.draw(*(submit(sd, job, **spec) for job, spec in asked.items()))
    assert [provenance(image)["batch"] for image in images] == [4, 4, 4, 4]
    for image in images:
        expected = truth(**asked[image.job_id])
        assert np.abs(pixels(image) - expected).max() <= 2


def test_deterministic_job_runs_alone_and_repeats_itself(worker: WorkerProcess, sd: ModelManifest) -> None:
    crowd = [submit(sd, f"crowd{i}", steps=8, seed=i) for i in range(3)]
    images = worker.draw(*crowd, submit(sd, "alone", deterministic=True, sampler="Euler a"))
    alone = next(image for image in images if image.job_id == "alone")
    assert provenance(alone)["batch"] == 1
    assert (pixels(alone) == _drawn(worker, sd, deterministic=True, sampler="Euler a")).all()
