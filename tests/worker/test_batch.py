"""Picks, as plain functions."""

from __future__ import annotations

import itertools
from typing import Any

from craftd.eviction import Resident, to_evict
from craftd.worker.engine import batch
from craftd.worker.engine.row import Row
from craftd.worker.models.memory import Ladder, Rung, TickBudget

from tests.worker.fakes import FakeDrawing, draw

_orders = itertools.count()


def _row(job_id: str, **changes: Any) -> Row:
    job = draw(job_id, **changes)
    return Row(job, 0, next(_orders), drawing=FakeDrawing(job))


def _names(rows: list[Row]) -> list[str]:
    return [row.job.job_id for row in rows]


def _serve(rows: list[Row], ticks: int, room: int = 10**9) -> list[list[str]]:
    served = []
    for tick in range(ticks):
        picked = batch.pick_batch(rows, tick, lambda _row: room)
        for row in picked:
            row.last_tick = tick
        served.append(_names(picked))
    return served


def test_rows_of_one_group_go_together() -> None:
    assert _serve([_row("a"), _row("b", steps=9), _row("c", sampler="UniPC")], 1) == [["a", "b", "c"]]


def test_groups_take_turns() -> None:
    rows = [_row("a"), _row("wide", width=16), _row("b")]
    assert _serve(rows, 4) == [["a", "b"], ["wide"], ["a", "b"], ["wide"]]


def test_a_deterministic_row_is_a_group_of_its_own() -> None:
    assert _serve([_row("a"), _row("alone", deterministic=True), _row("b")], 2) == [["a", "b"], ["alone"]]


def test_rows_over_the_limit_take_turns() -> None:
    rows = [_row(name) for name in "abc"]
    assert _serve(rows, 3, room=2 * 64) == [["a", "b"], ["c", "a"], ["b", "a"]]


def test_one_row_always_fits() -> None:
    assert _serve([_row("huge", width=4096)], 1, room=1) == [["huge"]]


def test_batch_work_gets_a_tick_of_eight() -> None:
    rows = [_row("now"), _row("later", width=16, priority="batch")]
    assert _serve(rows, 16).count(["later"]) == 2
    assert _serve(rows[1:], 3) == [["later"]] * 3


def test_batch_work_rides_along_in_the_same_group() -> None:
    assert _serve([_row("now"), _row("later", priority="batch")], 1) == [["now", "later"]]


def test_admission_is_fair_between_owners_and_by_age_within() -> None:
    active = [_row("a1", owner="ada")]
    waiting = [_row("a2", owner="ada"), _row("b1", owner="bob"), _row("b2", owner="bob")]
    first = batch.pick_to_admit(waiting, active, lambda _row: True)
    assert first is not None
    assert first.job.job_id == "b1"
    assert batch.pick_to_admit(waiting, active, lambda _row: False) is None
    late = [_row("patient", priority="batch"), _row("a3", owner="ada")]
    first = batch.pick_to_admit(late, active, lambda _row: True)
    assert first is not None
    assert first.job.job_id == "a3"


def test_who_holds_memory_yields_after_the_quantum() -> None:
    assert not batch.must_yield(None, 100.0)
    assert not batch.must_yield(97.0, 100.0, quantum_s=5.0)
    assert batch.must_yield(95.0, 100.0, quantum_s=5.0)


def test_the_least_recently_used_idle_model_goes_first() -> None:
    def resident(name: str, last_used: int, *, is_idle: bool = True) -> Resident:
        return Resident((name, ""), 400, last_used, is_idle)

    models = [resident("new", 9), resident("old", 1), resident("busy", 0, is_idle=False)]
    assert to_evict(models, 0, 1200) == []
    assert [r.key[0] for r in to_evict(models, 300, 1200) or []] == ["old"]
    assert [r.key[0] for r in to_evict(models, 600, 1200) or []] == ["old", "new"]
    assert to_evict(models, 900, 1200) is None


def test_the_ladder_has_each_rung_once() -> None:
    rungs = iter([True, True, False, False])
    ladder = Ladder(offload=lambda: next(rungs), tile=lambda: True)
    assert ladder.descend(4, is_decoding=False) is Rung.SMALLER_BATCH
    assert ladder.descend(1, is_decoding=False) is Rung.OFFLOAD
    assert ladder.descend(1, is_decoding=False) is Rung.OFFLOAD
    assert ladder.descend(1, is_decoding=False) is Rung.FAIL
    assert ladder.is_offloaded
    assert ladder.descend(1, is_decoding=True) is Rung.TILE
    assert ladder.descend(1, is_decoding=True) is Rung.FAIL
    helpless = Ladder(offload=lambda: False, tile=lambda: False)
    assert helpless.descend(1, is_decoding=True) is Rung.FAIL


def test_the_tick_budget_learns_but_not_from_the_first_tick() -> None:
    budget = TickBudget()
    before = budget.pixels
    budget.measured(1000, 100.0)
    assert budget.pixels == before
    budget.measured(1000, 1.0)
    assert budget.pixels == 5000
    budget.measured(1000, 0.1)
    assert budget.pixels == 50_000
    budget.halve(4000)
    assert budget.pixels == 2000
