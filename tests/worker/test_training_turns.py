"""Who has the device when: drawing goes first, training gets its share, and neither's failure is the other's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from craft_protos.dispatch import Cancel, Dispatch, Load, ModelManifest, Unload
from craft_protos.reasons import CraftError
from craftd.worker.engine.batch import QUANTUM_S

from tests.worker.fakes import FakeRunner, Studio, draw, manifest
from tests.worker.trained import PLAIN

ROW_S, TURN_S = 1.0, 2.0


@dataclass(eq=False)
class FakeRun:
    """So many pieces of work, each of which takes TURN_S."""

    train: Dispatch
    studio: Room
    step: int = 0
    attached: list[object] = field(default_factory=list)
    is_closed: bool = False

    def attach(self, pipe: object) -> None:
        self.studio.happened.append(f"attach {self.train.job_id}")

    def turn(self) -> bool:
        self.studio.trouble(self)
        self.studio.now += TURN_S
        self.step += 1
        self.studio.happened.append("train")
        return self.step == self.train.training.steps

    def put_aside(self) -> None:
        self.studio.happened.append("put aside")

    def settle(self) -> None:
        assert not self.is_closed
        self.studio.happened.append("settle")

    def close(self) -> None:
        self.is_closed = True


class Room(Studio):
    """A studio with a clock that what is done in it moves on, and a list of what was done."""

    def __init__(self, runners: dict[str, FakeRunner], *, budget_bytes: int = 1000) -> None:
        self.happened: list[str] = []
        self.runs: list[FakeRun] = []
        self.trouble: Callable[[FakeRun], None] = lambda _run: None
        for runner in runners.values():
            runner.trouble = self._row
        self.row_trouble: Callable[[], None] = lambda: None
        super().__init__(runners, budget_bytes=budget_bytes, begin=self._begin)

    def _begin(self, train: Dispatch, _context: object) -> FakeRun:
        self.runs.append(FakeRun(train, self))
        return self.runs[-1]

    def _row(self, doing: str, _jobs: list[str]) -> None:
        if doing == "advance":
            self.row_trouble()
            self.now += ROW_S
            self.happened.append("row")


def train(
    job_id: str = "train", model: ModelManifest | None = None, *, steps: int = 3, when_idle: bool = False
) -> Dispatch:
    return Dispatch(job_id, 1, replace(PLAIN, steps=steps, when_idle=when_idle), model or manifest())


def _room(**more: FakeRunner) -> Room:
    return Room({"fake": FakeRunner(), **more})


def _begun(room: Room, asked: Dispatch) -> None:
    """Its model is there and it has had its first turn."""
    room.engine.handle(asked)
    room.engine.tick()
    while "train" not in room.happened:
        room.turn()


def test_alone_it_has_all_the_time_and_says_when_it_is_done() -> None:
    room = _room()
    room.engine.handle(train())
    room.run()
    assert room.happened == ["attach train", "train", "train", "train"]
    assert room.ended() == {"train": "done"}
    assert room.runs[0].is_closed
    assert [one.rows for one in room.cache] == [0]


def test_a_job_that_comes_waits_for_one_turn_at_most_and_training_gets_a_quarter_of_the_time() -> None:
    room = _room()
    _begun(room, train(steps=1000))
    room.happened.clear()
    room.engine.handle(draw(steps=60))
    room.turn()
    assert room.happened[0] == "row"
    while not room.kinds("done"):
        room.turn()
    turns = room.happened[: len(room.happened) - room.happened[::-1].index("row")].count("train")
    assert turns * TURN_S / (60 * ROW_S + turns * TURN_S) == pytest.approx(0.25, abs=0.03)
    stretches = "".join("r" if what == "row" else "t" for what in room.happened).rstrip("t")
    assert "tt" not in stretches


def test_when_idle_it_waits_for_all_that_is_drawn() -> None:
    room = _room()
    room.engine.handle(draw("a", steps=5))
    room.engine.handle(train(when_idle=True))
    room.engine.handle(draw("b", steps=9))
    room.run()
    assert room.happened == [*["row"] * 9, "attach train", *["train"] * 3]
    assert room.ended() == {"a": "done", "b": "done", "train": "done"}


def test_trainings_have_their_turns_one_after_another() -> None:
    room = _room()
    for name in ("first", "second"):
        room.engine.handle(train(name))
    room.run()
    assert [what for what in room.happened if what != "train"] == ["attach first", "attach second"]
    assert [frame.done.job_id for frame in room.kinds("done")] == ["first", "second"]


def test_cancelled_before_and_while_it_trains() -> None:
    room = _room()
    _begun(room, train(steps=1000))
    room.engine.handle(train("next"))
    room.engine.handle(Cancel("next", 1))
    room.engine.handle(Cancel("train", 0))  # of an older dispatch
    assert room.ended() == {"next": "cancelled"}
    room.engine.handle(Cancel("train", 1))
    assert room.ended() == {"next": "cancelled", "train": "cancelled"}
    assert all(run.is_closed for run in room.runs)
    assert room.engine.doing == "idle"
    assert [one.rows for one in room.cache] == [0]


def test_a_new_dispatch_replaces_the_old_one() -> None:
    room = _room()
    _begun(room, train(steps=1000))
    room.engine.handle(replace(train(), epoch=2))
    room.run()
    assert [(frame.done.epoch, frame.done.cancelled) for frame in room.kinds("done")] == [(2, False)]
    assert room.runs[0].is_closed


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("no room"), MemoryError()])
def test_out_of_memory_is_tried_again_once_and_then_says_what_to_change(error: Exception) -> None:
    room = _room()

    def trouble(run: FakeRun) -> None:
        if run.step == 2:
            raise error

    room.trouble = trouble
    room.engine.handle(train(steps=5))
    room.engine.handle(draw("job", steps=20))
    room.run()
    assert room.ended() == {"train": "OUT_OF_MEMORY", "job": "done"}
    assert room.happened.count("attach train") == 2
    (failed,) = room.kinds("failed")
    assert "--gradient-checkpointing" in failed.failed.error.hint
    assert "--batch" in failed.failed.error.hint
    assert f"--resolution than {PLAIN.resolution}" in failed.failed.error.hint
    assert room.runs[0].is_closed


def test_drawing_that_runs_out_of_memory_gets_the_trainings_before_anything_else() -> None:
    room = _room()
    _begun(room, train(steps=50))

    def trouble() -> None:
        if "put aside" not in room.happened:
            raise MemoryError

    room.row_trouble = trouble
    room.happened.clear()
    room.run(draw("job", steps=5))
    assert room.happened[:6] == ["put aside", *["row"] * 5]
    assert room.ended() == {"train": "done", "job": "done"}


def test_a_training_that_fails_harms_nobody() -> None:
    room = _room()

    def trouble(_run: FakeRun) -> None:
        raise CraftError("BAD_DATASET", "picture a.png cannot be read")

    room.trouble = trouble
    room.run(draw("job"), draw("other"))
    room.engine.handle(train())
    room.run(draw("after"))
    assert room.ended() == {"job": "done", "other": "done", "after": "done", "train": "BAD_DATASET"}


def test_another_model_gets_the_room_after_a_quantum_and_gives_it_back() -> None:
    big = {name: FakeRunner(resident_bytes=600) for name in ("fake", "other")}
    room = Room(big, budget_bytes=1000)
    _begun(room, train(steps=40))
    room.engine.handle(draw("job", model=manifest("other"), steps=5))
    room.run()
    assert room.ended() == {"train": "done", "job": "done"}
    assert room.happened.count("put aside") == 1
    assert room.happened.count("attach train") == 2
    assert [frame.loaded.model for frame in room.kinds("loaded")] == ["fake", "other", "fake"]
    assert room.happened.index("row") < 12


def test_a_training_whose_model_has_no_room_waits_until_nothing_is_drawn() -> None:
    """Jobs go on joining those that are drawn, though it has waited for longer than a quantum."""
    big = {name: FakeRunner(resident_bytes=600) for name in ("fake", "other")}
    room = Room(big, budget_bytes=1000)
    other = manifest("other")
    room.engine.handle(draw("first", model=other, steps=4 * round(QUANTUM_S)))
    room.engine.tick()
    while "row" not in room.happened:
        room.turn()
    room.engine.handle(train())
    while room.now < 2 * QUANTUM_S:
        room.turn()
    room.engine.handle(draw("second", model=other, steps=2))
    room.turn()
    assert not room.cache.lacks_room
    assert {"first", "second"} in map(set, big["other"].batches)
    room.run()
    assert room.ended() == {"first": "done", "second": "done", "train": "done"}
    assert room.happened.index("attach train") == room.happened.count("row")


def test_a_model_that_drawing_has_offloaded_is_loaded_anew_for_its_training() -> None:
    runner = FakeRunner(can_offload=True)
    room = Room({"fake": runner})

    def trouble() -> None:
        if not runner.is_offloaded:
            raise MemoryError

    room.row_trouble = trouble
    room.engine.handle(draw("job", steps=5))
    room.engine.tick()
    while "row" not in room.happened:
        room.turn()
    room.engine.handle(train())
    room.run()
    assert room.ended() == {"job": "done", "train": "done"}
    assert room.happened == [*["row"] * 5, "attach train", *["train"] * 3]
    kinds = [frame.WhichOneof("frame") for frame in room.frames]
    assert [kind for kind in kinds if kind in ("loaded", "unloaded")] == ["loaded", "unloaded", "loaded"]


def test_unloading_waits_for_the_training() -> None:
    room = _room()
    _begun(room, train(steps=5))
    room.engine.handle(Unload("fake"))
    assert not room.kinds("unloaded")
    room.run()
    assert room.ended() == {"train": "done"}
    assert len(room.kinds("unloaded")) == 1


def test_a_model_that_cannot_be_loaded_fails_its_trainings() -> None:
    room = _room()

    def load(_model: ModelManifest, _done: object) -> FakeRunner:
        raise CraftError("CORRUPT_FILE", "the file is torn")

    room.cache._load_model = load
    room.engine.handle(train())
    room.run()
    assert room.ended() == {"train": "CORRUPT_FILE"}


def test_loading_that_runs_out_of_memory_gets_the_trainings() -> None:
    """By the numbers both models fit; with what a training holds besides they do not."""
    other = FakeRunner()
    room = _room(other=other)
    _begun(room, train(steps=5000))  # more turns than a thread takes to begin
    plain = room.cache._load_model

    def load(model: ModelManifest, done: Callable[[int], None]) -> FakeRunner:
        if model.name == "other" and "put aside" not in room.happened:
            raise MemoryError
        runner = plain(model, done)
        assert isinstance(runner, FakeRunner)
        return runner

    room.cache._load_model = load
    room.run(draw("job", model=manifest("other"), steps=5))
    assert room.ended() == {"train": "done", "job": "done"}
    assert room.happened.count("put aside") == 1
    assert len(other.batches) == 5


def test_progress_rises_with_every_turn() -> None:
    room = _room()
    _begun(room, train(steps=10))
    before = room.engine.progress
    room.turn()
    assert room.engine.progress == before + 1
    assert room.engine.doing == "training"
    room.engine.handle(Load(manifest()))
    room.run()


def test_a_disk_that_takes_no_folder_ends_no_worker(tmp_path: Path) -> None:
    studio = Studio({"fake": FakeRunner()}, work_folder=tmp_path / "gone")
    studio.engine.handle(train())
    studio.run(draw("job"))
    assert studio.ended() == {"train": "UNTRAINABLE_MODEL", "job": "done"}


def test_the_real_run_refuses_a_runner_that_shares_nothing(tmp_path: Path) -> None:
    studio = Studio({"fake": FakeRunner()}, work_folder=tmp_path)
    studio.engine.handle(train())
    studio.run()
    assert studio.ended() == {"train": "UNTRAINABLE_MODEL"}
    assert not list(tmp_path.iterdir())
