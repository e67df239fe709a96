"""Failing writes, short: `python -m tests.storms.writes` goes on for longer."""

from __future__ import annotations

from tests.storms.checker import summary
from tests.storms.scene import scene
from tests.storms.writes import fail_writes


async def test_a_disk_that_fails_for_a_moment_costs_nobody_anything(storm_seed: int) -> None:
    async with scene(storm_seed) as one:
        outcome = await fail_writes(one, 8, callers=6)
    assert not outcome.violations, summary(outcome.violations)
