"""Every fault at every moment.

python -m tests.storms.table [--rounds N] [--seed N]
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import time
from collections.abc import Sequence

from tests.storms import program
from tests.storms.faults import FAULTS
from tests.storms.journal import Violation
from tests.storms.moments import MOMENTS
from tests.storms.program import Outcome, progress
from tests.storms.scene import Scene, scene

Plan = list[tuple[str, str]]  # (moment, fault)


def deal(seed: int, faults: Sequence[str]) -> Plan:
    """Each fault once, at moments that differ for as long as there are others."""
    moments = list(MOMENTS)
    random.Random(seed).shuffle(moments)
    return list(zip(itertools.islice(itertools.cycle(moments), len(faults)), faults, strict=True))


async def pass_over(one: Scene, plan: Plan) -> Outcome:
    """One storm after another over the same craft, each with the checker behind it."""
    outcome = Outcome({"storms": len(plan)})
    for moment, fault in plan:
        where = f"{fault} while {moment}"
        began = time.monotonic()
        await MOMENTS[moment](one)
        await FAULTS[fault](one)
        await one.settle()
        found = await one.check_running()
        outcome.violations += [Violation(one_.kind, f"{where}: {one_.what}") for one_ in found]
        progress(f"{where}: {time.monotonic() - began:.1f} s, {len(found)} violations")
    outcome.violations += await one.check_stopped()
    return outcome


async def storm(asked: argparse.Namespace) -> Outcome:
    whole = Outcome()
    for number, fault in itertools.product(range(asked.rounds), FAULTS):
        async with scene(asked.seed + number) as one:
            whole.add(await pass_over(one, [(moment, fault) for moment in MOMENTS]))
    return whole


if __name__ == "__main__":
    sys.exit(program.main("table", __doc__, storm, rounds=1))
