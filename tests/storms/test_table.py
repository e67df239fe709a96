"""Each fault at some moment, each moment with some fault: `python -m tests.storms.table` has all of them."""

from __future__ import annotations

import pytest

from tests.storms.checker import summary
from tests.storms.faults import FAULTS
from tests.storms.moments import MOMENTS
from tests.storms.scene import scene
from tests.storms.table import deal, pass_over

pytestmark = pytest.mark.slow

_ABOUT = {
    "processes": [name for name in FAULTS if "of the" in name],
    "disks": [name for name in FAULTS if " on " in name],
}
_ABOUT["surroundings"] = [name for name in FAULTS if not any(name in some for some in _ABOUT.values())]


def test_every_fault_and_every_moment_has_its_turn() -> None:
    plans = [deal(0, faults) for faults in _ABOUT.values()]
    assert {fault for plan in plans for _, fault in plan} == set(FAULTS)
    assert {moment for seed in range(9) for faults in _ABOUT.values() for moment, _ in deal(seed, faults)} == set(
        MOMENTS
    )


@pytest.mark.parametrize("about", list(_ABOUT))
async def test_nothing_is_lost(about: str, storm_seed: int) -> None:
    async with scene(storm_seed) as one:
        one.caller.limit_s = 100
        outcome = await pass_over(one, deal(storm_seed, _ABOUT[about]))
    assert not outcome.violations, summary(outcome.violations)
