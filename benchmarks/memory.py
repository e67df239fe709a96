"""Memory: what the front holds, and whether front or worker grow over many jobs.

    python -m benchmarks.memory [--jobs N] [--steps N] [--side PIXELS]

A real craftd with the built-in model draws small pictures for eight clients at once; resident
memory is read after a tenth, after half and after all of the jobs. What grows for each job would
grow between any two of them; what libraries keep once they are warm comes before the first.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import psutil
from craft_cli.client import Client

from benchmarks import daemon, figures
from benchmarks.daemon import Daemon

AT_ONCE = 8
FRONT_LIMIT_MB = 80.0
FRONT_GROWTH_MB, WORKER_GROWTH_MB = 3.0, 15.0  # what allocators and caches wobble by


@dataclass(frozen=True)
class Sample:
    """Resident megabytes after so many jobs."""

    jobs: int
    front_mb: float
    worker_mb: float


def main() -> int:
    asked = _parse()
    with daemon.running() as craftd:
        client = craftd.client()
        fresh = _sample(craftd, client, 0)
        samples = list(_draw(craftd, client, asked))
        client.close()
    for sample in (fresh, *samples):
        print(f"after {sample.jobs} jobs: front {sample.front_mb:.1f} MB, worker {sample.worker_mb:.1f} MB")
    first, *_, last = samples
    most = max(sample.front_mb for sample in samples)
    front, worker = last.front_mb - first.front_mb, last.worker_mb - first.worker_mb
    span = f"over jobs {first.jobs} to {last.jobs}"
    return figures.tell(
        [
            figures.Figure("the front's memory", "a budget", most, fresh.front_mb, most, "MB", at_most=FRONT_LIMIT_MB),
            figures.Figure(f"the front's growth {span}", "none", front, front, front, "MB", at_most=FRONT_GROWTH_MB),
            figures.Figure(
                f"the worker's growth {span}", "none", worker, worker, worker, "MB", at_most=WORKER_GROWTH_MB
            ),
        ]
    )


def _draw(craftd: Daemon, client: Client, asked: argparse.Namespace) -> list[Sample]:
    """All the jobs, with pauses in which memory is read."""

    def draw(i: int) -> None:
        spec = daemon.request(f"a red apple {i}", seed=i, steps=asked.steps, width=asked.side, height=asked.side)
        daemon.finish(client, spec)

    marks = [0, max(1, asked.jobs // 10), max(1, asked.jobs // 2), asked.jobs]
    samples = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for begin, end in itertools.pairwise(marks):
            list(pool.map(draw, range(begin, end)))
            samples.append(_sample(craftd, client, end))
    return samples


def _sample(craftd: Daemon, client: Client, jobs: int) -> Sample:
    workers = client.status().workers
    return Sample(jobs, _mb(craftd.pid), sum(_mb(worker.pid) for worker in workers))


def _mb(pid: int) -> float:
    return float(psutil.Process(pid).memory_info().rss) / 2**20


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=500)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--side", type=int, default=64)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
