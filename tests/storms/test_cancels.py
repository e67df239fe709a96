"""Cancel against finish, short: `python -m tests.storms.cancels` goes on for longer."""

from __future__ import annotations

from tests.storms.cancels import race
from tests.storms.checker import summary
from tests.storms.scene import scene


async def test_a_cancelled_job_ends_as_its_watchers_hear(storm_seed: int) -> None:
    async with scene(storm_seed) as one:
        outcome = await race(one, 40)
    assert not outcome.violations, summary(outcome.violations)
