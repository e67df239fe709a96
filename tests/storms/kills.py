"""kill -9 of the daemon and of its workers at random moments, under load.

    python -m tests.storms.kills [--daemon N] [--worker N] [--seed N]

Told besides: how long from a kill of the daemon until the next one was ready, and from a kill of a
worker until one of its jobs was given to the next.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import time
from collections.abc import Sequence

import psutil
from craft_protos.jobs_pb2 import JOB_STATE_RUNNING

from tests.storms import program
from tests.storms.load import Load
from tests.storms.log import LogTail, Record, seconds_of
from tests.storms.program import Outcome, progress
from tests.storms.scene import Scene, scene

_AT_ONCE = 50  # kills in one scene: then everything is checked, and another begins
READY, DISPATCH = "kill to ready", "worker kill to next dispatch"


async def kill_daemons(one: Scene, count: int, *, callers: int = 8) -> Outcome:
    """Under load, after a random number of things that callers heard; the checker has the last word."""
    load, outcome = Load(one, callers), Outcome(seconds={READY: []})
    load.start()
    for _ in range(count):
        await one.journal.hear(one.chance.randrange(5, 120))
        outcome.seconds[READY].append(await one.keeper.restart())
    await load.stop()
    return await _checked(one, outcome, load, {"daemon kills": count})


async def kill_workers(
    one: Scene, count: int, *, callers: int = 8, signals: Sequence[signal.Signals] = (signal.SIGKILL,)
) -> Outcome:
    """One of them each time. `signals`: what befalls it; one that is stopped is ended by the daemon, which counts."""
    load, outcome = Load(one, callers), Outcome(seconds={DISPATCH: []})
    load.start()
    killed = 0
    while killed < count:
        await one.journal.hear(one.chance.randrange(5, 120))
        seconds = await _kill_worker(one, one.chance.choice(signals))
        killed += seconds is not None
        outcome.seconds[DISPATCH] += [seconds] if seconds else []
    await load.stop()
    return await _checked(one, outcome, load, {"worker kills": count})


async def _kill_worker(one: Scene, number: signal.Signals) -> float | None:
    """How long until a job that it had was dispatched again; 0: it had none that needed to be; None: no worker."""
    workers = one.keeper.workers
    if not workers:
        return None
    running = {job.id for job in await one.caller.list(JOB_STATE_RUNNING)}
    tail = LogTail(one.home.paths.log_file)
    with contextlib.suppress(psutil.NoSuchProcess):
        at = time.time()
        one.chance.choice(workers).send_signal(number)
        for job_id in running:  # frames are written to it while it dies
            one.begin(one.caller.cancel(job_id)) if one.chance.random() < 0.3 else one.begin(one.ask())
        await tail.wait(lambda record: record["event"] == "worker ended")
        again = await tail.wait(lambda record: _is_dispatch(record, running), 5.0 if running else 0.1)
        return max(0.001, seconds_of(again) - at) if again else 0.0
    return None


def _is_dispatch(record: Record, jobs: set[str]) -> bool:
    return record["event"] == "job dispatched" and record["job"] in jobs


async def _checked(one: Scene, outcome: Outcome, load: Load, counts: dict[str, float]) -> Outcome:
    await one.settle()
    outcome.violations += await one.check_running()
    outcome.violations += await one.check_stopped()
    outcome.violations = list(dict.fromkeys(outcome.violations))
    outcome.counts |= counts | {"jobs": sum(load.done.values()), "deaths by itself": len(one.keeper.deaths)}
    return outcome


async def storm(asked: argparse.Namespace) -> Outcome:
    whole = Outcome()
    for victim, count, kill in (("daemon", asked.daemon, kill_daemons), ("worker", asked.worker, kill_workers)):
        for first in range(0, count, _AT_ONCE):
            async with scene(asked.seed + first) as one:
                part = await kill(one, min(_AT_ONCE, count - first))
            whole.add(part)
            progress(f"{min(first + _AT_ONCE, count)} of {count} kills of the {victim}: {part.told}")
    return whole


if __name__ == "__main__":
    sys.exit(program.main("kills", __doc__, storm, daemon=1000, worker=1000))
