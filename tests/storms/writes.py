"""Calls on files that fail under load: EIO, ENOSPC, EROFS and the like, for one call, a few, or a while.

python -m tests.storms.writes [--faults N] [--seed N]
"""

from __future__ import annotations

import argparse
import errno
import random
import sys

from tests.storms import program
from tests.storms.load import Load
from tests.storms.program import Outcome, progress
from tests.storms.scene import Scene, scene
from tests.storms.shim import WRITING, Order

_AT_ONCE = 25  # faults in one scene
ERRORS = (errno.EIO, errno.ENOSPC, errno.EROFS, errno.EDQUOT)
OPERATIONS = ("w", "f", "r", "c", "m", "wf", "wf", "wf", WRITING)
PLACES = ("/data/", "/data/", "/data/", "craft.db", "craft.db-wal", "/data/images", "/data/files", "/state/")


def plan(chance: random.Random) -> tuple[Order, float]:
    """(what fails, for how long at most)."""
    order = Order(
        operations=chance.choice(OPERATIONS),
        match=chance.choice(PLACES),
        error=chance.choice(ERRORS),
        mode=chance.choice("ffffp"),
        skip=chance.randrange(12),
        count=chance.choice((1, 2, 5, 20, -1, -1, -1)),
        share=chance.choice((1.0, 1.0, 0.3)),
        seed=chance.randrange(1 << 30),
    )
    return order, chance.choice((0.2, 0.4, 0.8))


async def fail_writes(one: Scene, count: int, *, callers: int = 8) -> Outcome:
    """Under load; after each fault the disk is sound until callers have heard of some more."""
    load, outcome = Load(one, callers), Outcome()
    load.start()
    hits = 0
    for _ in range(count):
        await one.journal.hear(one.chance.randrange(3, 60))
        order, seconds = plan(one.chance)
        one.shim.order(order)
        hits += await one.shim.hit(order.count if order.count > 0 else 1_000_000, seconds)
        one.shim.release()
    await load.stop()
    await one.settle()
    outcome.violations += await one.check_running()
    outcome.violations += await one.check_stopped()
    outcome.violations = list(dict.fromkeys(outcome.violations))
    outcome.counts |= {"write faults": count, "calls that failed": hits, "jobs": sum(load.done.values())}
    outcome.counts |= {"deaths by itself": len(one.keeper.deaths)}
    return outcome


async def storm(asked: argparse.Namespace) -> Outcome:
    whole = Outcome()
    for first in range(0, asked.faults, _AT_ONCE):
        async with scene(asked.seed + first) as one:
            part = await fail_writes(one, min(_AT_ONCE, asked.faults - first))
        whole.add(part)
        progress(f"{min(first + _AT_ONCE, asked.faults)} of {asked.faults} write faults: {part.told}")
    return whole


if __name__ == "__main__":
    sys.exit(program.main("writes", __doc__, storm, faults=500))
