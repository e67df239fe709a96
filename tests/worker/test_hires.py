"""Rows that go on after they are drawn: enlarged, drawn again from themselves, enlarged at the end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from craft_protos import jobs_pb2
from craft_protos.worker_pb2 import Cancel, ModelManifest, ToWorker
from craftd.worker.upscaling.enlarging import resized
from PIL import Image

from tests.worker.client import WorkerProcess, pixels, provenance, submit
from tests.worker.starts import diffusers_draws, start_picture, submit_over
from tests.worker.starts import put as put_picture
from tests.worker.upscalers import network, put, with_upscaler

Truth = Callable[..., np.ndarray]


def again(**how: Any) -> jobs_pb2.Hires:
    return jobs_pb2.Hires(**({"scale": 1.5, "width": 96, "height": 96, "strength": 0.5, "steps": 6} | how))


@pytest.mark.parametrize("kind", ["sd", "flux"])
def test_it_is_text_to_image_then_lanczos_then_image_to_image(
    worker: WorkerProcess, files: Path, models: dict[str, ModelManifest], pipelines: Callable[[str], Any], kind: str
) -> None:
    """Of diffusers' own pipelines, each with a generator of the same seed."""
    (first,) = worker.draw(submit(models[kind]))
    job = with_upscaler(submit(models[kind]), put(files), hires=again())
    (made,) = worker.draw(job)
    enlarged = Image.fromarray(pixels(first).astype(np.uint8)).resize((96, 96), Image.Resampling.LANCZOS)
    expected = diffusers_draws(pipelines(kind), enlarged, sampler="Euler", steps=6, strength=0.5)
    assert made.width == 96 and np.abs(pixels(made) - expected).max() <= 2
    told = provenance(made)
    assert told["hires"] == {
        **{"scale": 1.5, "strength": 0.5, "steps": 6, "upscaler": "lanczos", "width": 96, "height": 96}
    }
    assert [one["name"] for one in told["upscalers"]] == ["lanczos"]


def test_rows_of_a_batch_are_as_alone(worker: WorkerProcess, files: Path, sd: ModelManifest) -> None:
    """Some are drawn twice, some enlarged, some neither; the second drawings share calls, too."""
    lanczos, x4 = put(files), put(files, scale=4)
    worker.draw(submit(sd, "warm"), with_upscaler(submit(sd, "warm too"), x4, times=2))

    def jobs() -> list[ToWorker]:
        return [
            with_upscaler(submit(sd, "a", seed=1), lanczos, hires=again()),
            with_upscaler(submit(sd, "b", seed=2), lanczos, hires=again(strength=1.0)),
            with_upscaler(submit(sd, "c", seed=3, indices=(0, 1), count=2), x4, times=4),
            submit(sd, "d", seed=4),
        ]

    alone = [image for job in jobs() for image in worker.draw(job)]
    together = worker.draw(*jobs())
    assert max(provenance(image)["batch"] for image in together) > 1
    for one, other in zip(alone, together, strict=True):
        assert np.abs(pixels(one) - pixels(other)).max() <= 2
    assert [image.width for image in together] == [96, 96, 256, 256, 64]


def test_it_is_enlarged_at_the_end(worker: WorkerProcess, files: Path, sd: ModelManifest, tmp_path: Path) -> None:
    (first,) = worker.draw(submit(sd))
    (made,) = worker.draw(with_upscaler(submit(sd), put(files, scale=4), times=2))
    whole = np.rint(network(tmp_path / "x", scale=4)(pixels(first).astype(np.uint8))).astype(np.uint8)
    assert np.abs(pixels(made) - resized(whole, (128, 128))).max() <= 1
    steps = [(frame.step.step, frame.step.of) for frame in worker.seen if frame.WhichOneof("frame") == "step"]
    assert steps[-1] == (5, 5), "the tile counts as a step"


def test_a_picture_is_enlarged_without_any_other_model(worker: WorkerProcess, files: Path) -> None:
    x4, image = put(files, scale=4), start_picture(48, 40)
    start, calls = put_picture(files, image), worker.predict_calls()
    job = submit_over(x4, start, strength=0.0, steps=0, prompt="", width=48, height=40, guidance_scale=0.0, sampler="")
    job.dispatch.generate.upscale.CopyFrom(jobs_pb2.Upscale(model="x4", scale=4))
    (made,) = worker.draw(job)
    assert (made.width, made.height) == (192, 160) and worker.predict_calls() == calls + 1
    told = provenance(made)
    assert (told["steps"], told["model"]["name"], told["upscale"]["scale"]) == (0, "x4", 4.0)
    assert "upscalers" not in told and "hires" not in told


def test_cancelled_between_tiles_it_ends(worker: WorkerProcess, files: Path) -> None:
    """A large picture is many tiles."""
    start = put_picture(files, Image.new("RGB", (1500, 1500), "red"))
    job = submit_over(put(files, scale=4, convolutions=8), start, strength=0.0, steps=0, width=1500, height=1500)
    job.dispatch.generate.upscale.CopyFrom(jobs_pb2.Upscale(model="x4", scale=4))
    worker.send(job)
    step = worker.until_kind("step")
    assert 0 < step.step < step.of
    worker.send(ToWorker(cancel=Cancel(job_id="job", epoch=1)))
    assert worker.until_kind("done").cancelled


def test_an_upscaler_that_did_not_come_along_fails_the_job_alone(worker: WorkerProcess, sd: ModelManifest) -> None:
    job = submit(sd, upscale=jobs_pb2.Upscale(model="gone", scale=2))
    assert worker.fail(job).error.reason == "CORRUPT_FILE"
