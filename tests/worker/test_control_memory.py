"""Control models in memory: loaded beside the models of their jobs, counted, and evicted as models are."""

from __future__ import annotations

from dataclasses import replace

from craft_protos.dispatch import Dispatch, Unload

from tests.worker.fakes import FakeRunner, Studio, draw, manifest


def _with_control(job: Dispatch, name: str = "control") -> Dispatch:
    return replace(job, controls=(manifest(name),))


def _loaded(studio: Studio) -> list[str]:
    return [frame.loaded.model for frame in studio.kinds("loaded")]


def _unloaded(studio: Studio) -> list[str]:
    return [frame.unloaded.model for frame in studio.kinds("unloaded")]


def test_it_is_loaded_once_and_stays_for_the_next_job() -> None:
    studio = Studio({"fake": FakeRunner(), "control": FakeRunner()})
    studio.run(_with_control(draw("a")), draw("b"))
    studio.run(_with_control(draw("c")))
    assert studio.ended() == {"a": "done", "b": "done", "c": "done"}
    assert sorted(_loaded(studio)) == ["control", "fake"] and not _unloaded(studio)


def test_another_one_takes_the_room_of_an_idle_one() -> None:
    runners = {name: FakeRunner(resident_bytes=400) for name in ("fake", "control", "other")}
    studio = Studio(runners, budget_bytes=1000)
    studio.run(_with_control(draw("a")))
    studio.run(_with_control(draw("b"), "other"))
    assert studio.ended() == {"a": "done", "b": "done"}
    assert _unloaded(studio) == ["control"], "the model of the job stays"


def test_what_does_not_fit_by_the_estimate_is_tried_all_the_same() -> None:
    """A model and its control model never push each other out."""
    runners = {name: FakeRunner(resident_bytes=700) for name in ("fake", "control", "idle")}
    studio = Studio(runners, budget_bytes=1000)
    studio.run(replace(draw("before"), model=manifest("idle")))
    studio.run(_with_control(draw("a")))
    assert studio.ended() == {"before": "done", "a": "done"}
    assert _unloaded(studio) == ["idle"]


def test_it_is_unloaded_once_its_rows_are_done() -> None:
    studio = Studio({"fake": FakeRunner(), "control": FakeRunner()})
    studio.engine.handle(_with_control(draw("a")))
    while not studio.engine.rows:
        studio.turn()
    studio.engine.handle(Unload("control"))
    assert not _unloaded(studio)
    studio.run()
    assert studio.ended() == {"a": "done"} and _unloaded(studio) == ["control"]
