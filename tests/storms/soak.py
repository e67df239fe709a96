"""Full speed for an hour: what grows, of memory, descriptors and threads, says so by its slope.

    python -m tests.storms.soak [--minutes N] [--callers N] [--seed N]

Callers on all faces draw, cancel and delete; nothing is killed. A line is fitted to each measure after the first
tenth of the time, by which caches are filled. Besides: jobs a second, and the checker at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.storms import program
from tests.storms.faces import faces
from tests.storms.journal import Violation
from tests.storms.load import Load
from tests.storms.program import Outcome, progress
from tests.storms.scene import Scene

_EVERY_S = 1.0
_HOUR = 3600.0
_WARM = 0.1  # of the time
# What may be gained in an hour before it counts as growth: the noise of an allocator, and none of the others.
_MOST = {"front MB": 12.0, "worker MB": 12.0, "descriptors": 3.0, "threads": 2.0}


@dataclass
class Measures:
    """Samples over time, by name."""

    at: list[float] = field(default_factory=list)
    values: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in _MOST})

    def take(self, one: Scene, now: float) -> None:
        front = psutil.Process(one.keeper.pid)
        self.at.append(now)
        self.values["front MB"].append(front.memory_info().rss / 2**20)
        self.values["worker MB"].append(sum(map(_rss_bytes, one.keeper.workers)) / 2**20)
        self.values["descriptors"].append(front.num_fds())
        self.values["threads"].append(front.num_threads())

    def slopes(self) -> dict[str, float]:
        """How much of each an hour brings."""
        warm = int(len(self.at) * _WARM)
        at = self.at[warm:]
        return {
            name: statistics.linear_regression(at, some[warm:]).slope * _HOUR if len(at) > 2 else 0.0
            for name, some in self.values.items()
        }


def _rss_bytes(worker: psutil.Process) -> int:
    """0 of one that has ended."""
    try:
        return int(worker.memory_info().rss)
    except psutil.Error:
        return 0


async def soak(one: Scene, load: Load, seconds: float) -> Outcome:
    """So long under load, measured all the while."""
    measures, began = Measures(), time.monotonic()
    load.start()
    while (now := time.monotonic() - began) < seconds:
        measures.take(one, now)
        await asyncio.sleep(min(_EVERY_S, seconds / 20))
    await load.stop()
    await one.settle()
    slopes = measures.slopes()
    jobs = sum(load.done.values())
    outcome = Outcome({"minutes": seconds / 60, "jobs": jobs, "jobs a second": round(jobs / seconds, 1)})
    outcome.counts |= {f"{name} at first": round(some[0], 1) for name, some in measures.values.items()}
    outcome.counts |= {f"{name} at last": round(some[-1], 1) for name, some in measures.values.items()}
    outcome.counts |= {f"{name} an hour": round(slope, 2) for name, slope in slopes.items()}
    progress(f"measured, and now checked: {outcome.counts}")  # an hour's work, whatever the checker and the cleaning do
    outcome.violations += await one.check_running()
    outcome.violations += await one.check_stopped()
    progress(f"checked: {len(outcome.violations)} violations")
    if seconds >= 600:  # a slope of less says nothing
        outcome.violations += [
            Violation("grows", f"{name} by {slope:.2f} an hour")
            for name, slope in slopes.items()
            if slope > _MOST[name]
        ]
    return outcome


async def storm(asked: argparse.Namespace) -> Outcome:
    with tempfile.TemporaryDirectory(prefix="craft-pems-") as folder:
        async with faces(asked.seed, Path(folder)) as all_faces:
            load = Load(all_faces.scene, asked.callers, pauses=False, faces=tuple(all_faces.callers.values()))
            progress(f"soaking for {asked.minutes} minutes")
            return await soak(all_faces.scene, load, asked.minutes * 60)


if __name__ == "__main__":
    sys.exit(program.main("soak", __doc__, storm, minutes=60.0, callers=8))
