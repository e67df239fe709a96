"""A real worker that trains: what it serves meanwhile is not changed by it, in any bit."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from craft_protos import training_pb2
from craft_protos.worker_pb2 import FromWorker, ModelManifest, ToWorker, Train

from tests.worker import trained
from tests.worker.client import WorkerProcess, pixels, submit
from tests.worker.loras import Make, submit_with
from tests.worker.trained import PLAIN


def ask(files: Path, model: ModelManifest, **changes: Any) -> ToWorker:
    """A training of the worker's own."""
    asked = trained.ask(files, model.name, **changes)
    named = {name: value for name, value in asdict(asked.recipe).items() if value != ""}
    pictures = [
        training_pb2.DatasetPicture(
            sha256=one.sha256, file_name=one.file_name, width=one.width, height=one.height, caption=one.caption
        )
        for one in asked.pictures
    ]
    spec = training_pb2.TrainSpec(model=model.name, **named)
    return ToWorker(train=Train(job_id="train", epoch=3, spec=spec, model=model, pictures=pictures))


def _of_training(seen: list[FromWorker], kind: str) -> list[Any]:
    return [getattr(frame, kind) for frame in seen if frame.WhichOneof("frame") == kind]


def test_pictures_are_the_same_before_during_and_after_and_are_drawn_between_its_steps(
    worker: WorkerProcess, files: Path, sd: ModelManifest, make: Make
) -> None:
    lora = make("sd", "beside", seed=70)
    jobs = [submit(sd, "plain", sampler="Euler a"), submit_with(sd, [(lora, 0.8)], "adapted")]
    before = [pixels(image) for image in worker.draw(*jobs)]
    worker.seen.clear()
    worker.send(ask(files, sd, steps=24))
    for _ in range(3):
        worker.until_kind("training")
    during = [pixels(image) for image in worker.draw(*jobs)]
    assert not any(frame.done.job_id == "train" for frame in worker.seen), "it must still be training"
    worker.until(lambda frame: frame.WhichOneof("frame") == "done" and frame.done.job_id == "train")
    after = [pixels(image) for image in worker.draw(*jobs)]
    for first, second, third in zip(before, during, after, strict=True):
        assert np.array_equal(first, third)
        assert np.array_equal(first, second)
    steps = [frame.step.step for frame in _of_training(worker.seen, "training")]
    assert steps == list(range(1, 25))
    assert {frame.epoch for frame in _of_training(worker.seen, "training")} == {3}
    kinds = [frame.WhichOneof("frame") for frame in worker.seen]
    assert kinds.index("training") < kinds.index("image") < len(kinds) - kinds[::-1].index("training")


def test_cancelled_it_is_quiet_and_leaves_nothing_behind(worker: WorkerProcess, files: Path, sd: ModelManifest) -> None:
    stored = {path.name for path in files.iterdir()}
    worker.send(ask(files, sd, steps=10_000))
    worker.until_kind("training")
    worker.send(ToWorker(cancel=ToWorker.Cancel(job_id="train", epoch=3)))
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
