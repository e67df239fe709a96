"""Models made for inpainting: what they draw in a mask is what diffusers' own pipelines draw, and they need a mask."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from craft_protos.worker_pb2 import ModelManifest
from PIL import Image

from tests.matrix import covers
from tests.worker.client import WorkerProcess, pixels, submit
from tests.worker.loras import Make, with_loras
from tests.worker.starts import diffusers_draws, put, spotted, start_picture, submit_over
from tests.worker.test_masks import assert_pasted, pasted
from tests.worker.test_start_batches import assert_each_is_as_alone

__all__ = ["pasted"]

KINDS = ("sd-inpainting", "sdxl-inpainting", "flux-fill")
Models = dict[str, ModelManifest]


@covers("inpaint", form="folder", kind="kind")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("steps", "strength"), [(5, 0.6), (3, 1.0)])
def test_what_is_drawn_is_diffusers_own(pasted: Callable[..., None], kind: str, steps: int, strength: float) -> None:
    pasted(kind, steps=steps, strength=strength)


@pytest.mark.parametrize("sampler", ["", "Euler a", "Heun", "DPM++ 2M Karras", "LCM"])
@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_samplers(pasted: Callable[..., None], sampler: str, strength: float) -> None:
    pasted("sd-inpainting", sampler=sampler, strength=strength, steps=5)


@pytest.mark.parametrize("kind", KINDS)
def test_they_see_what_the_mask_leaves(
    worker: WorkerProcess, files: Path, models: Models, pipelines: Callable[[str], Any], kind: str
) -> None:
    """A white mask is diffusers' too; and what lies around a mask decides what is drawn in it."""
    start, white = start_picture(), Image.new("L", (64, 64), 255)
    (drawn,) = worker.draw(submit_over(models[kind], put(files, start), mask=put(files, white), strength=1.0))
    assert_pasted(pixels(drawn), diffusers_draws(pipelines(kind), start, white, strength=1.0), start, white)
    mask, other = spotted(), np.asarray(start).copy()
    other[np.asarray(mask) == 0] = 255 - other[np.asarray(mask) == 0]
    asked: dict[str, Any] = {"mask": put(files, mask), "strength": 1.0}
    one, two = worker.draw(
        submit_over(models[kind], put(files, start), "a", **asked),
        submit_over(models[kind], put(files, Image.fromarray(other)), "b", **asked),
    )
    inside = np.asarray(mask) == 255
    assert np.abs(pixels(one) - pixels(two))[inside].max() > 2


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_other_masks_and_loras_share_a_call(
    worker: WorkerProcess, files: Path, models: Models, make: Make, kind: str
) -> None:
    a, model, start = make(kind, "inpaint-a", seed=401), models[kind], put(files, start_picture())
    one, other = put(files, spotted()), put(files, spotted(box=(0, 0, 32, 64)))
    worker.draw(with_loras(submit_over(model, start, "warm", mask=one), (a, 1.0)))
    assert_each_is_as_alone(
        worker,
        [
            with_loras(submit_over(model, start, "a", mask=one, strength=1.0), (a, 0.8)),
            submit_over(model, start, "b", mask=other, strength=0.9, seed=9),
            submit_over(model, start, "c", mask=other, strength=1.0, refined={"invert": True}),
        ],
    )


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_black_comes_back_to_the_bit(worker: WorkerProcess, files: Path, models: Models, kind: str) -> None:
    start, mask = start_picture(67, 93), spotted((67, 93), (10, 10, 30, 30))
    asked = {"width": 67, "height": 93, "strength": 1.0}
    (drawn,) = worker.draw(submit_over(models[kind], put(files, start), mask=put(files, mask), **asked))
    kept = np.asarray(mask) == 0
    assert np.array_equal(pixels(drawn)[kept], np.asarray(start)[kept])


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_mask_they_draw_nothing(worker: WorkerProcess, files: Path, models: Models, kind: str) -> None:
    """The front knows; this is for whoever speaks to a worker alone."""
    for job in (submit(models[kind]), submit_over(models[kind], put(files, start_picture()))):
        failed = worker.fail(job)
        assert (failed.error.reason, failed.error.message.partition(":")[0]) == ("INVALID_FIELD", "mask")
