"""Checkpoints: written while others go on, told of once they lie there, and fit for their own training alone."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from craft_protos.worker_pb2 import FromWorker
from craftd.worker.training import stored
from craftd.worker.training.writer import Writer
from safetensors.torch import load_file

from tests.home import HANG_S
from tests.worker.trained import Desk, ask, from_checkpoint, refusal

pytestmark = pytest.mark.usefixtures("quick_samples")

Pipelines = Callable[[str], Any]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path, tmp_path)


def test_nothing_waits_for_a_checkpoint_to_be_written(
    desk: Desk, pipelines: Pipelines, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_free, write = threading.Event(), stored.put

    def put_slowly(folder: Path, data: bytes) -> stored.Stored:
        assert is_free.wait(HANG_S)
        return write(folder, data)

    monkeypatch.setattr(stored, "put", put_slowly)
    run = desk.begin(ask(desk.files, steps=5, checkpoint_every=2), pipelines("sd"))
    while not any(step.step.step == 3 for step in desk.of("training")):
        assert not run.turn()
    assert not desk.of("checkpoint")  # of step 2
    is_free.set()
    while not run.turn():
        pass
    assert [frame.step for frame in desk.of("checkpoint")] == [2, 4]
    assert [frame.WhichOneof("frame") for frame in desk.frames][-1] == "lora"
    run.close()


@pytest.mark.parametrize("ends", ["goes on", "fails", "is cancelled"])
def test_a_checkpoint_is_told_of_without_another_turn(
    tmp_path: Path, pipelines: Pipelines, monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    """Drawing may take every turn for hours, or the model may never come back."""
    is_told, is_free, is_written = threading.Event(), threading.Event(), threading.Event()

    class Listening(Desk):
        def send(self, frame: FromWorker) -> None:
            super().send(frame)
            if frame.WhichOneof("frame") == "checkpoint":
                is_told.set()

    desk, write, made = Listening(tmp_path, tmp_path), Writer._write, list[stored.Stored]()
    put = stored.put

    def put_slowly(folder: Path, data: bytes) -> stored.Stored:
        assert is_free.wait(HANG_S)
        made.append(put(folder, data))
        return made[-1]

    def write_and_say(*given: Any) -> None:
        write(*given)
        is_written.set()

    monkeypatch.setattr(stored, "put", put_slowly)
    monkeypatch.setattr(Writer, "_write", write_and_say)
    run = desk.begin(ask(desk.files, steps=5, checkpoint_every=2), pipelines("sd"))
    while run.step < 3:
        assert not run.turn()
    run.put_aside()
    assert not is_told.is_set()
    if ends == "is cancelled":
        run.close()
        is_free.set()
    else:
        is_free.set()
        if ends == "fails":
            run.settle()
            assert is_told.is_set()
        assert is_told.wait(HANG_S)
        run.close()
    assert is_written.wait(HANG_S)
    assert [frame.step for frame in desk.of("checkpoint")] == ([] if ends == "is cancelled" else [2])
    assert (desk.files / made[0].sha256).exists() == (ends != "is cancelled")


def test_a_checkpoint_holds_no_pickle_and_fits_its_own_training_alone(desk: Desk, pipelines: Pipelines) -> None:
    train, pipe = ask(desk.files, steps=3, checkpoint_every=2), pipelines("sd")
    desk.train(train, pipe)
    (checkpoint,) = desk.of("checkpoint")
    held = load_file(desk.files / checkpoint.sha256)
    assert {name.partition("/")[0] for name in held} == {"generator", "weight", "mean", "square"}
    again = from_checkpoint(replace(train, spec=replace(train.training, learning_rate=1.0)), checkpoint)
    assert refusal(desk, again, pipe).reason == "BAD_DATA"
    (desk.files / checkpoint.sha256).write_bytes(b"\x80\x04not safetensors")
    assert refusal(desk, from_checkpoint(train, checkpoint), pipe).reason == "CORRUPT_FILE"
