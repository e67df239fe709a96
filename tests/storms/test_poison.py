"""Jobs that are the death of their workers: they fail, alone; whoever only stood by is drawn."""

from __future__ import annotations

import contextlib

import psutil
import pytest

from tests.storms.checker import summary
from tests.storms.scene import Scene, scene

POISONS = ["crash", "abort", "bad frame", "oversized frame", "hang"]


@pytest.mark.parametrize("word", POISONS)
async def test_a_poisoned_job_fails_alone(word: str, storm_seed: int) -> None:
    """Once is forgiven; the third death with evidence is the job's end."""
    async with scene(storm_seed) as one:
        one.caller.limit_s = 100
        one.hold()
        mates = [await one.ask(f"mate {number} [held]") for number in range(2)]
        once = await one.ask(f"[held] [{word} once]")
        poison = await one.ask(f"[held] [{word}]")
        one.journal.expect(one.journal.asked[poison].request_id, "FAILED")
        await one.runs(mates[0])
        await one.settle()
        violations = await one.check_running()
        assert not violations, summary(violations)
        end = one.journal.ends[poison]
        assert (end.state, end.reason) == ("FAILED", "WORKER_DIED")
        assert [(await one.caller.look(mate)).attempts for mate in mates] == [0, 0]
        assert (await one.caller.look(once)).state == (await one.caller.look(mates[0])).state
        violations = await one.check_stopped()
    assert not violations, summary(violations)


async def test_kills_from_outside_never_count(storm_seed: int) -> None:
    """Four times the worker is killed while it has that one job alone, more often than a poisoned one is forgiven."""
    async with scene(storm_seed) as one:
        job_id = await one.ask("[slow]", steps=20)
        for _ in range(4):
            await one.runs(job_id)
            await _kill_alone(one, job_id)
        await one.settle()
        violations = [*await one.check_running(), *await one.check_stopped()]
    assert not violations, summary(violations)


async def _kill_alone(one: Scene, job_id: str) -> None:
    """The worker, in the middle of the job; back when the job waits for the next one, or has ended."""
    await one.steps(job_id)
    for worker in one.keeper.workers:
        with contextlib.suppress(psutil.NoSuchProcess):
            worker.kill()
    await one.gone_on(job_id)
