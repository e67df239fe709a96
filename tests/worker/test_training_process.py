"""A real worker that trains: what it serves meanwhile is not changed by it, in any bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from craft_protos.frames import to_worker
from craft_protos.worker_pb2 import Cancel, File, FromWorker, ModelManifest, ToWorker
from craftd.architectures import registry

from tests.worker import trained
from tests.worker.client import WorkerProcess, pixels, submit
from tests.worker.loras import Make, Stored, submit_with
from tests.worker.trained import PLAIN


def ask(files: Path, model: ModelManifest, **changes: Any) -> ToWorker:
    """A training of the worker's own."""
    asked = trained.ask(files, model.name, **changes)
    frame = to_worker(replace(asked, job_id="train", epoch=3))
    frame.dispatch.model.CopyFrom(model)
    return frame


def _of_training(seen: list[FromWorker], kind: str) -> list[Any]:
    return [getattr(frame, kind) for frame in seen if frame.WhichOneof("frame") == kind]


def test_pictures_are_the_same_before_during_and_after_and_are_drawn_between_its_steps(
    worker: WorkerProcess, files: Path, sd: ModelManifest, make: Make
) -> None:
    lora = make("sd", "beside", seed=70)
    jobs = [submit(sd, "plain", sampler="Euler a"), submit_with(sd, [(lora, 0.8)], "adapted")]
    before = [pixels(*worker.draw(job)) for job in jobs]
    worker.seen.clear()
    worker.send(ask(files, sd, steps=96))
    for _ in range(3):
        worker.until_kind("training")
    during = [pixels(*worker.draw(job)) for job in jobs]
    assert not any(frame.done.job_id == "train" for frame in worker.seen), "it must still be training"
    worker.until(lambda frame: frame.WhichOneof("frame") == "done" and frame.done.job_id == "train")
    after = [pixels(*worker.draw(job)) for job in jobs]
    for first, second, third in zip(before, during, after, strict=True):
        assert np.array_equal(first, third)
        assert np.array_equal(first, second)
    steps = [frame.step.step for frame in _of_training(worker.seen, "training")]
    assert steps == list(range(1, 97))
    assert {frame.epoch for frame in _of_training(worker.seen, "training")} == {3}
    kinds = [frame.WhichOneof("frame") for frame in worker.seen]
    assert kinds.index("training") < kinds.index("image") < len(kinds) - kinds[::-1].index("training")


def test_cancelled_it_is_quiet_and_leaves_nothing_behind(worker: WorkerProcess, files: Path, sd: ModelManifest) -> None:
    stored = {path.name for path in files.iterdir()}
    worker.send(ask(files, sd, steps=10_000))
    worker.until_kind("training")
    worker.send(ToWorker(cancel=Cancel(job_id="train", epoch=3)))
    done = worker.until_kind("done")
    assert (done.job_id, done.epoch, done.cancelled) == ("train", 3, True)
    worker.until(lambda frame: frame.stats.doing == "idle")
    asked = {one.sha256 for one in trained.ask(files).pictures}
    assert {path.name for path in files.iterdir()} == stored | asked


def test_what_comes_of_it_is_in_the_store_by_its_sha256(worker: WorkerProcess, files: Path, sd: ModelManifest) -> None:
    worker.send(ask(files, sd, steps=3, checkpoint_every=2))
    got = worker.until_ended("train")
    (checkpoint,), (made,) = _of_training(got, "checkpoint"), _of_training(got, "lora")
    for told in (checkpoint, made):
        path = files / told.sha256
        assert path.is_file()
        assert not path.is_symlink()
        assert path.stat().st_size == told.size_bytes
    preparing = [(frame.what, frame.done, frame.of) for frame in _of_training(got, "preparing")]
    assert preparing == [("captions", 1, 2), ("captions", 2, 2), *(("pictures", i, 3) for i in (1, 2, 3))]
    (last,) = [frame.step for frame in _of_training(got, "training")][-1:]
    assert (last.step, last.of, last.learning_rate, last.seconds_left) == (3, 3, PLAIN.learning_rate, 0)


@pytest.mark.parametrize("kind", ["lcm", "pixart"])
def test_what_cannot_be_trained_fails_at_once_and_alone(
    worker: WorkerProcess, files: Path, models: dict[str, ModelManifest], sd: ModelManifest, kind: str
) -> None:
    worker.send(ask(files, models[kind]), submit(sd, "beside"))
    got = worker.until_ended("train", "beside")
    (failed,) = _of_training(got, "failed")
    assert (failed.job_id, failed.epoch, failed.error.reason) == ("train", 3, "UNTRAINABLE_MODEL")
    assert len(_of_training(got, "image")) == 1


@pytest.mark.parametrize(("kind", "architecture"), [("sd", "sd1"), ("sdxl", "sdxl"), ("sd3", "sd3"), ("flux", "flux")])
def test_a_sample_is_the_engines_own_picture(
    worker: WorkerProcess, files: Path, models: dict[str, ModelManifest], kind: str, architecture: str
) -> None:
    """To the bit where the adapter changes nothing; with the LoRA that came of it, within 1/255."""
    usual = next(row.training for row in registry.ROWS if row.id == architecture)
    assert usual is not None
    asked = {"prompt": "a red cat", "width": 64, "height": 64, "seed": PLAIN.seed, "sampler": ""}
    asked |= {"steps": usual.sample_steps, "guidance_scale": usual.guidance_scale}
    samples = []
    for rate in (0.0, 1e-2):
        worker.send(ask(files, models[kind], steps=2, learning_rate=rate, sample_prompts=("a red cat",)))
        got = worker.until_ended("train")
        (sample,), (made,) = _of_training(got, "sample"), _of_training(got, "lora")
        samples.append(pixels(sample.sample))
    lora = Stored(files / made.sha256, File(name="made", sha256=made.sha256, size_bytes=made.size_bytes))
    (plain,) = worker.draw(submit(models[kind], **asked))
    (adapted,) = worker.draw(submit_with(models[kind], [(lora, 1.0)], **asked))
    assert np.array_equal(samples[0], pixels(plain))
    assert np.abs(samples[1] - pixels(adapted)).max() <= 1
    assert np.abs(samples[1] - samples[0]).max() > 1
