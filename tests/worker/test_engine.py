"""The engine's own decisions, without a device: whose fault, what to do without memory, who goes first."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import torch
from craft_protos.dispatch import Cancel, Load, Preview, Unload

from tests.worker.fakes import FakeRunner, Studio, draw, manifest

Trouble = Callable[[str, list[str]], None]


def _trouble(when: str, is_too_much: Callable[[list[str]], bool], error: Callable[[], Exception]) -> Trouble:
    def trouble(doing: str, jobs: list[str]) -> None:
        if doing == when and is_too_much(jobs):
            raise error()

    return trouble


@pytest.mark.parametrize("when", ["begin", "advance", "render"])
def test_the_guilty_job_fails_alone(when: str) -> None:
    runner = FakeRunner(_trouble(when, lambda jobs: "bad" in jobs, lambda: RuntimeError("its own fault")))
    studio = Studio({"fake": runner})
    studio.run(*(draw(name) for name in ("a", "bad", "b")))
    assert studio.ended() == {"a": "done", "bad": "JOB_FAILED", "b": "done"}
    (failed,) = studio.kinds("failed")
    assert "its own fault" in failed.failed.error.message


def _of_the_cpu_allocator() -> Exception:
    """What torch really raises."""
    with pytest.raises(RuntimeError) as raised:
        torch.empty(1 << 60, dtype=torch.uint8)
    return raised.value


@pytest.mark.parametrize("error", [lambda: torch.OutOfMemoryError("no room"), MemoryError, _of_the_cpu_allocator])
def test_out_of_memory_halves_the_batch(error: Callable[[], Exception]) -> None:
    runner = FakeRunner(_trouble("advance", lambda jobs: len(jobs) > 2, error))
    studio = Studio({"fake": runner})
    studio.run(*(draw(f"job{i}") for i in range(8)))
    assert set(studio.ended().values()) == {"done"}
    assert max(len(jobs) for jobs in runner.batches) == 2


def test_out_of_memory_alone_offloads_then_goes_on() -> None:
    runner = FakeRunner(can_offload=True)
    runner.trouble = _trouble("advance", lambda _jobs: not runner.is_offloaded, MemoryError)
    studio = Studio({"fake": runner})
    studio.run(draw())
    assert studio.ended() == {"job": "done"}
    assert runner.is_offloaded
    assert not runner.is_tiled


def test_out_of_memory_while_decoding_tiles_and_says_so() -> None:
    runner = FakeRunner()
    runner.trouble = _trouble("render", lambda _jobs: not runner.is_tiled, MemoryError)
    studio = Studio({"fake": runner})
    studio.run(draw("a"), draw("b"))
    assert studio.ended() == {"a": "done", "b": "done"}
    assert all(json.loads(frame.image.provenance)["vae_tiling"] for frame in studio.kinds("image"))


@pytest.mark.parametrize("error", [lambda: torch.OutOfMemoryError("no room"), MemoryError, _of_the_cpu_allocator])
def test_a_prompt_that_does_not_fit_beside_others_waits_for_their_end(error: Callable[[], Exception]) -> None:
    runner = FakeRunner()
    studio = Studio({"fake": runner})
    runner.trouble = _trouble("begin", lambda jobs: jobs == ["big"] and studio.engine.rows > 0, error)
    studio.run(draw("a"), draw("b"), draw("big"), draw("late"))
    assert set(studio.ended().values()) == {"done"}
    assert runner.batches[:3] == [["a", "b"]] * 3 and ["big", "late"] in runner.batches


def test_a_prompt_that_does_not_fit_alone_offloads() -> None:
    runner = FakeRunner(can_offload=True)
    runner.trouble = _trouble("begin", lambda _jobs: not runner.is_offloaded, MemoryError)
    studio = Studio({"fake": runner})
    studio.run(draw())
    assert studio.ended() == {"job": "done"} and runner.is_offloaded


@pytest.mark.parametrize("when", ["begin", "advance", "render"])
def test_out_of_memory_after_every_rung_fails_one_job(when: str) -> None:
    runner = FakeRunner(_trouble(when, lambda jobs: "big" in jobs, MemoryError), can_tile=False)
    studio = Studio({"fake": runner})
    studio.run(draw("big"), draw("small"))
    assert studio.ended() == {"big": "OUT_OF_MEMORY", "small": "done"}


def test_cancel_before_during_and_after() -> None:
    studio = Studio({"fake": FakeRunner()})
    studio.engine.handle(draw("queued"))
    studio.engine.handle(Cancel("queued", 1))
    studio.engine.handle(draw("running", steps=100))
    studio.engine.tick()
    studio.turn()
    assert studio.engine.can_step
    studio.engine.handle(Cancel("running", 0))  # of an older dispatch
    assert studio.engine.can_step
    studio.engine.handle(Cancel("running", 1))
    assert not studio.engine.can_step
    studio.run(draw("last"))
    studio.engine.handle(Cancel("last", 1))
    assert studio.ended() == {"queued": "cancelled", "running": "cancelled", "last": "done"}


def test_a_new_dispatch_replaces_the_old_one() -> None:
    studio = Studio({"fake": FakeRunner()})
    studio.run(draw(steps=50), draw(epoch=2))
    assert {frame.step.epoch for frame in studio.kinds("step")} == {2}
    assert [(frame.done.epoch, frame.done.cancelled) for frame in studio.kinds("done")] == [(2, False)]


def test_nothing_to_draw_is_an_error() -> None:
    studio = Studio({"fake": FakeRunner()})
    studio.run(draw("none", indices=()), draw("no steps", steps=0))
    assert studio.ended() == {"none": "INVALID_FIELD", "no steps": "INVALID_FIELD"}


def test_a_model_makes_room_for_another_and_comes_back() -> None:
    runners = {name: FakeRunner(resident_bytes=600) for name in ("a", "b")}
    studio = Studio(runners, budget_bytes=1000)
    studio.run(draw("1", model=manifest("a")))
    studio.run(draw("2", model=manifest("b")))
    studio.run(draw("3", model=manifest("a")))
    assert set(studio.ended().values()) == {"done"}
    assert [frame.unloaded.model for frame in studio.kinds("unloaded")] == ["a", "b"]
    assert [frame.loaded.model for frame in studio.kinds("loaded")] == ["a", "b", "a"]


def test_a_model_keeps_the_memory_for_a_quantum_only() -> None:
    """50 jobs of model a are waiting when one of b comes; b is drawn before half of them are."""
    runners = {name: FakeRunner(resident_bytes=600) for name in ("a", "b")}
    studio = Studio(runners, budget_bytes=1000, max_rows=1)
    jobs = [draw(f"a{i}", model=manifest("a")) for i in range(50)]
    studio.run(*jobs, draw("b", model=manifest("b")), seconds_per_turn=0.5)
    order = [frame.done.job_id for frame in studio.kinds("done")]
    assert len(order) == 51
    assert order.index("b") < 25


def test_a_quantum_runs_to_its_end() -> None:
    """The time a model waits in vain does not count against one that it does not wait for."""
    runners = {name: FakeRunner(resident_bytes=600) for name in ("a", "b")}
    studio = Studio(runners, budget_bytes=1000, max_rows=1)
    studio.run(*(draw(f"a{i}", model=manifest("a")) for i in range(3)), draw("b", model=manifest("b")))
    assert [frame.done.job_id for frame in studio.kinds("done")] == ["a0", "a1", "a2", "b"]


def test_unload_waits_for_rows_and_always_answers() -> None:
    studio = Studio({"fake": FakeRunner()})
    studio.engine.handle(Unload("fake"))
    assert studio.kinds("unloaded")[0].unloaded.why == "it was not loaded"
    studio.engine.handle(draw(steps=5))
    studio.engine.tick()
    studio.turn()
    studio.engine.handle(Unload("fake"))
    assert len(studio.kinds("unloaded")) == 1
    studio.run()
    assert studio.ended() == {"job": "done"}
    assert len(studio.kinds("unloaded")) == 2


def test_load_loads_once_and_answers_each_time() -> None:
    studio = Studio({"fake": FakeRunner()})
    studio.run()
    studio.engine.handle(Load(manifest()))
    studio.run()
    studio.engine.handle(Load(manifest()))
    assert len(studio.kinds("loaded")) == 2
    assert len(studio.kinds("loading")) == 1


def test_previews_for_nobody_are_not_asked_for() -> None:
    studio = Studio({"fake": FakeRunner()})
    studio.engine.handle(Preview("unknown", 3))
    studio.run(draw())
    assert studio.ended() == {"job": "done"}


def test_owners_share_what_there_is() -> None:
    """Ada has sent ten jobs before Bob sends two; with room for two rows, each has one."""
    runner = FakeRunner()
    studio = Studio({"fake": runner}, max_rows=2)
    ada = [draw(f"ada{i}", owner="ada") for i in range(10)]
    bob = [draw(f"bob{i}", owner="bob") for i in range(2)]
    studio.run(*ada, *bob)
    assert runner.batches[0] == ["ada0", "bob0"]
    assert "bob1" in runner.batches[3]


def test_unload_while_loading_takes_effect_at_its_end() -> None:
    studio = Studio({"fake": FakeRunner()})
    studio.engine.handle(Load(manifest()))
    studio.engine.tick()
    studio.engine.handle(Unload("fake"))
    studio.run()
    assert [frame.WhichOneof("frame") for frame in studio.frames][-2:] == ["loaded", "unloaded"]


def test_a_gpu_that_torch_cannot_use_is_named_when_a_job_starts() -> None:
    warning = "the driver sees a GPU, but this torch cannot use it"
    studio = Studio({"fake": FakeRunner()}, warnings=(warning,))
    studio.run(draw("a"))
    (started,) = studio.kinds("started")
    assert started.started.notice == warning
