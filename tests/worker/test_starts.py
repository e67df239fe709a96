"""Image-to-image is what diffusers' own pipelines draw: each family, strength, sampler and size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from craft_protos.worker_pb2 import ModelManifest
from craftd.worker.inputs.fitting import place
from PIL import Image

from tests.worker.client import WorkerProcess, pixels, provenance, submit
from tests.worker.starts import SIDE, Alike, diffusers_draws, put, start_picture, submit_over

KINDS = ("sd", "sd-tiny-vae", "sd-text-time", "sdxl", "sd3", "flux", "chroma", "z-image", "qwen-image")
SAMPLERS = ("", "Euler a", "Heun", "DDIM", "DPM++ 2M Karras", "DPM++ SDE", "PNDM", "LCM", "UniPC", "DPM2 a", "LMS")
Models = dict[str, ModelManifest]
Pipelines = Callable[[str], Any]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("steps", "strength"), [(5, 0.55), (20, 0.05), (3, 1.0), (7, 0.3)])
def test_every_family(alike: Alike, kind: str, steps: int, strength: float) -> None:
    alike(kind, steps=steps, strength=strength)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize(("steps", "strength"), [(6, 0.5), (5, 0.99)])
def test_samplers(alike: Alike, sampler: str, steps: int, strength: float) -> None:
    alike("sd", sampler=sampler, steps=steps, strength=strength)


@pytest.mark.parametrize(
    ("kind", "sampler"),
    [("sd3", ""), ("sd3", "Heun"), ("flux", ""), ("chroma", ""), ("z-image", ""), ("qwen-image", "")],
)
def test_samplers_of_flows(alike: Alike, kind: str, sampler: str) -> None:
    """Others than diffusers' pipelines begin from a picture with: test_image_to_image.py."""
    alike(kind, sampler=sampler, steps=6, strength=0.5)


@pytest.mark.parametrize("size", [(64, 96), (72, 200)], ids=str)
def test_sizes(alike: Alike, size: tuple[int, int]) -> None:
    alike("sd", start_picture(*size))


@pytest.mark.parametrize(("fit", "mode"), [("crop", "crop"), ("stretch", "default")])
@pytest.mark.parametrize("size", [(100, 64), (64, 100), (31, 200), (640, 480)], ids=str)
def test_fits(pipelines: Pipelines, fit: str, mode: str, size: tuple[int, int]) -> None:
    """As diffusers' processor of pictures does it."""
    image = start_picture(*size)
    fitted = pipelines("sd").image_processor.resize(image, SIDE, SIDE, resize_mode=mode)
    assert np.array_equal(np.asarray(place(size, (SIDE, SIDE), fit).laid(image)), np.asarray(fitted))


@pytest.mark.parametrize("size", [(100, 64), (64, 100), (31, 200), (640, 480)], ids=str)
def test_filling_draws_the_edges_out(pipelines: Pipelines, size: tuple[int, int]) -> None:
    """The picture lies where diffusers' processor lays it."""
    image, placement = start_picture(*size), place(size, (SIDE, SIDE), "fill")
    filled = placement.laid(image)
    theirs = pipelines("sd").image_processor.resize(image, SIDE, SIDE, resize_mode="fill")
    assert np.array_equal(np.asarray(filled.crop(placement.box)), np.asarray(theirs.crop(placement.box)))
    rows, columns = np.asarray(filled), np.asarray(filled).swapaxes(0, 1)
    assert (np.array_equal(rows[0], rows[1]), np.array_equal(columns[0], columns[1])).count(True) == 1


@pytest.mark.parametrize("kind", ["sd", "flux2", "sd3"])
@pytest.mark.parametrize("size", [(64, 64), (200, 100)])
def test_strength_nought_gives_the_start_back(
    worker: WorkerProcess, files: Path, models: Models, kind: str, size: tuple[int, int]
) -> None:
    image = start_picture(*size)
    start, calls = put(files, image), worker.predict_calls()
    (drawn,) = worker.draw(submit_over(models[kind], start, strength=0.0, fit="stretch"))
    expected = image.resize((SIDE, SIDE), Image.Resampling.LANCZOS) if size != (SIDE, SIDE) else image
    assert np.array_equal(pixels(drawn), np.asarray(expected))
    assert worker.predict_calls() == calls


@pytest.mark.parametrize(("sampler", "of"), [("Euler", 3), ("Heun", 3), ("PNDM", 3)])
def test_steps_are_those_that_are_made(
    worker: WorkerProcess, files: Path, sd: ModelManifest, sampler: str, of: int
) -> None:
    worker.draw(submit_over(sd, put(files, start_picture()), steps=6, strength=0.5, sampler=sampler))
    assert [(frame.step.step, frame.step.of) for frame in worker.seen if frame.HasField("step")][-1] == (of, of)


def test_rows_of_all_strengths_and_of_text_share_a_call(
    worker: WorkerProcess, files: Path, sd: ModelManifest, pipelines: Pipelines, truth: Callable[..., np.ndarray]
) -> None:
    """Each is as it is alone."""
    image = start_picture()
    start = put(files, image)
    asked: dict[str, dict[str, Any]] = {
        "a": {"strength": 0.9, "steps": 5, "sampler": "Euler a"},
        "b": {"strength": 0.5, "steps": 9, "seed": 99},
        "c": {"strength": 1.0, "steps": 4, "sampler": "Heun", "guidance_scale": 1.0},
    }
    worker.draw(submit(sd, "warm"), submit_over(sd, start, "warm start"))
    jobs = [submit_over(sd, start, job, **spec) for job, spec in asked.items()]
    images = worker.draw(*jobs, submit(sd, "text", steps=6))
    assert [provenance(image)["batch"] for image in images] == [4, 4, 4, 4]
    for made in images[:3]:
        expected = diffusers_draws(pipelines("sd"), image, **asked[made.job_id])
        assert np.abs(pixels(made) - expected).max() <= 2
    assert np.abs(pixels(images[3]) - truth(steps=6)).max() <= 2


@pytest.mark.parametrize("kind", ["sd", "flux"])
def test_each_image_of_a_job_has_a_seed_of_its_own(
    worker: WorkerProcess, files: Path, models: Models, pipelines: Pipelines, kind: str
) -> None:
    """Another noise, and other latents of the start: as each would be alone."""
    image = start_picture()
    images = worker.draw(submit_over(models[kind], put(files, image), indices=(0, 1, 2)))
    for made in images:
        expected = diffusers_draws(pipelines(kind), image, strength=0.6, seed=7 + made.index)
        assert np.abs(pixels(made) - expected).max() <= 2


def test_a_strength_that_leaves_no_step_is_refused(worker: WorkerProcess, files: Path, sd: ModelManifest) -> None:
    failed = worker.fail(submit_over(sd, put(files, start_picture()), strength=0.1, steps=5))
    assert (failed.error.reason, "none of the steps" in failed.error.message) == ("INVALID_FIELD", True)


def test_provenance_names_the_start(worker: WorkerProcess, files: Path, sd: ModelManifest) -> None:
    start = put(files, start_picture())
    (drawn,) = worker.draw(submit_over(sd, start, strength=0.5, fit="fill"))
    assert provenance(drawn)["start"] == {"sha256": start.sha256, "strength": 0.5, "fit": "fill"}
