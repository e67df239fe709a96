"""What every family is held to: its images are the diffusers pipeline's, alone and in a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from craft_protos.worker_pb2 import ModelManifest

from tests.worker.client import WorkerProcess, pixels, provenance, submit

Truth = Callable[..., np.ndarray]


def assert_same(drawn: np.ndarray, expected: np.ndarray) -> None:
    """Within 1/255 anywhere."""
    assert drawn.shape == expected.shape
    assert np.ptp(expected) > 20, "a flat picture proves nothing"
    assert np.abs(drawn - expected).max() <= 1


def draw(worker: WorkerProcess, model: ModelManifest, **spec: Any) -> np.ndarray:
    """One image of one job, alone."""
    (image,) = worker.draw(submit(model, **spec))
    return pixels(image)


def assert_third_of_four_is_the_same_alone(worker: WorkerProcess, model: ModelManifest, **spec: Any) -> None:
    third = worker.draw(submit(model, indices=(0, 1, 2, 3), **spec))[2]
    assert (third.index, third.seed, provenance(third)["batch"]) == (2, 9, 4)
    assert np.abs(draw(worker, model, seed=third.seed, **spec) - pixels(third)).max() <= 1


def assert_mixed_batch_is_close(
    worker: WorkerProcess, model: ModelManifest, truth: Truth, kind: str, asked: Mapping[str, Mapping[str, Any]]
) -> None:
    """Jobs of different samplers, steps and guidance share their model calls; each is within 2/255 of its own truth."""
    worker.draw(submit(model, "warm", steps=2))  # so that all are admitted at once
    before = worker.predict_calls()
    images = worker.draw(*(submit(model, job, **spec) for job, spec in asked.items()))
    assert [provenance(image)["batch"] for image in images] == [len(asked)] * len(asked)
    off = {image.job_id: int(np.abs(pixels(image) - truth(kind, **asked[image.job_id])).max()) for image in images}
    assert max(off.values()) <= 2, off
    assert worker.predict_calls() - before <= 2 + max(int(spec["steps"]) * 2 for spec in asked.values())
