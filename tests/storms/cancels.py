"""Cancel against finish: every watcher hears the end that is stored, whichever it is.

python -m tests.storms.cancels [--races N] [--seed N]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import sys

from craft_protos import jobs_pb2

from tests.home import HANG_S
from tests.storms import program
from tests.storms.callers import GaveUp, drawing
from tests.storms.program import Outcome, progress
from tests.storms.scene import Scene, scene
from tests.storms.shim import Order

_AT_ONCE = 200  # races in one scene
_SLOW_MS = (0, 2, 10)  # of each sync: the slower the disk, the longer an end is under way


async def race(one: Scene, count: int, *, callers: int = 8) -> Outcome:
    """Each job is cancelled after a random one of its events, with two watchers to hear how that went."""
    slow_ms = one.chance.choice(_SLOW_MS)
    if slow_ms:
        one.shim.order(Order("f", error=slow_ms, mode="s"))
    left = asyncio.Semaphore(callers)
    chances = [random.Random(one.chance.random()) for _ in range(count)]
    await asyncio.gather(*(_one(one, chance, left) for chance in chances))
    await one.settle()
    outcome = Outcome({"cancel races": count})
    states = [
        one.journal.ends[job_id].state for job_id in one.journal.acknowledged.values() if job_id in one.journal.ends
    ]
    outcome.counts |= {"cancelled": states.count("CANCELLED"), "finished": states.count("SUCCEEDED")}
    outcome.violations += await one.check_running()
    outcome.violations += await one.check_stopped()
    outcome.violations = list(dict.fromkeys(outcome.violations))
    return outcome


async def _one(one: Scene, chance: random.Random, left: asyncio.Semaphore) -> None:
    asked = drawing(seed=chance.randrange(1 << 24), steps=chance.randint(1, 3), count=chance.randint(1, 2))
    async with left:
        with contextlib.suppress(GaveUp):
            job_id = await one.caller.create(asked)
            finishing = [asyncio.create_task(one.caller.finish(job_id)) for _ in range(2)]
            await _events(one, job_id, chance.randrange(1, 9))
            await one.caller.cancel(job_id)
            await asyncio.gather(*finishing)


async def _events(one: Scene, job_id: str, count: int) -> None:
    """Until so many came, or the last."""
    watching = one.caller.jobs.WatchJob(jobs_pb2.WatchJobRequest(id=job_id), timeout=HANG_S)
    async for event in watching:
        count -= 1
        if not count or event.HasField("finished"):
            watching.cancel()
            return


async def storm(asked: argparse.Namespace) -> Outcome:
    whole = Outcome()
    for first in range(0, asked.races, _AT_ONCE):
        async with scene(asked.seed + first) as one:
            part = await race(one, min(_AT_ONCE, asked.races - first))
        whole.add(part)
        progress(f"{min(first + _AT_ONCE, asked.races)} of {asked.races} cancel races: {part.told}")
    return whole


if __name__ == "__main__":
    sys.exit(program.main("cancels", __doc__, storm, races=1000))
