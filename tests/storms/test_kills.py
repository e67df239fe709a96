"""kill -9, short: `python -m tests.storms.kills` goes on for longer."""

from __future__ import annotations

import signal

import pytest

from tests.storms.checker import summary
from tests.storms.kills import kill_daemons, kill_workers
from tests.storms.scene import scene

pytestmark = pytest.mark.slow


async def test_a_daemon_that_is_killed_loses_nothing(storm_seed: int) -> None:
    async with scene(storm_seed) as one:
        outcome = await kill_daemons(one, 3, callers=6)
    assert not outcome.violations, summary(outcome.violations)


async def test_a_worker_that_is_killed_costs_nobody_anything(storm_seed: int) -> None:
    async with scene(storm_seed) as one:
        outcome = await kill_workers(one, 12, callers=6)
    assert not outcome.violations, summary(outcome.violations)


async def test_of_three_workers_one_is_killed_or_stopped_again_and_again(storm_seed: int) -> None:
    """Pictures of one job are shared over workers; what another worker draws meanwhile is its own."""
    async with scene(storm_seed, CRAFT_WORKER_DEVICES="cpu*3") as one:
        outcome = await kill_workers(one, 12, callers=6, signals=(signal.SIGKILL, signal.SIGKILL, signal.SIGSTOP))
    assert not outcome.violations, summary(outcome.violations)


async def test_the_daemon_of_three_workers_loses_nothing(storm_seed: int) -> None:
    async with scene(storm_seed, CRAFT_WORKER_DEVICES="cpu*3") as one:
        outcome = await kill_daemons(one, 2, callers=6)
    assert not outcome.violations, summary(outcome.violations)


async def test_a_picture_that_was_deleted_while_its_job_ran_is_not_drawn_again(storm_seed: int) -> None:
    async with scene(storm_seed) as one:
        job_id = await one.ask("[slow]", count=8, steps=3)  # twice as many as are drawn at once
        while not (images := (await one.caller.look(job_id)).images):
            await one.heard(1)
        await one.caller.delete(images[0].id)
        await one.keeper.restart()
        await one.settle()
        violations = [*await one.check_running(), *await one.check_stopped()]
    assert not violations, summary(violations)
