"""Memory: what the front holds, and whether front or worker grow over many jobs.

    python -m benchmarks.memory [--jobs N] [--steps N] [--side PIXELS]

A real craftd with the built-in model draws small pictures for eight clients at once; resident
memory is read before, after a tenth, after half and after all of the jobs. What is kept up to a
limit is there before the first: the kernels that oneDNN compiles for each number of rows in a
batch (about 1 MB each), which chance would else let come up anywhere among the jobs, and what
the last hundred prompts became (16 MB).
"""

from __future__ import annotations

import argparse
import itertools
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import psutil
from craft_cli.connection.client import Client
from craft_protos import jobs_pb2

from benchmarks import daemon, figures
from benchmarks.daemon import Daemon

AT_ONCE = 8
FRONT_LIMIT_MB = 80.0
WARMING_PROMPTS = 120  # more than the worker keeps
FRONT_GROWTH_MB, WORKER_GROWTH_MB = 3.0, 6.0  # what allocators wobble by


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
        _warm_up(client, asked)
        samples = [_sample(craftd, client, 0), *_draw(craftd, client, asked)]
        client.close()
    print(f"fresh: front {fresh.front_mb:.1f} MB")
    for sample in samples:
        print(f"after {sample.jobs} jobs: front {sample.front_mb:.1f} MB, worker {sample.worker_mb:.1f} MB")
    first, last = samples[0], samples[-1]
    most = max(sample.front_mb for sample in samples)
    front, worker = last.front_mb - first.front_mb, last.worker_mb - first.worker_mb
    span = f"over {last.jobs} jobs"
    return figures.tell(
        [
            figures.Figure("the front's memory", "a budget", most, fresh.front_mb, most, "MB", at_most=FRONT_LIMIT_MB),
            figures.Figure(f"the front's growth {span}", "none", front, front, front, "MB", at_most=FRONT_GROWTH_MB),
            figures.Figure(
                f"the worker's growth {span}", "none", worker, worker, worker, "MB", at_most=WORKER_GROWTH_MB
            ),
        ]
    )


def _warm_up(client: Client, asked: argparse.Namespace) -> None:
    """Every number of rows twice, and more prompts than are kept."""
    for rows in (*range(1, AT_ONCE + 1), *range(1, AT_ONCE + 1)):
        daemon.finish(client, _request(asked, "warm", count=rows))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda i: daemon.finish(client, _request(asked, f"warm {i}")), range(WARMING_PROMPTS)))


def _draw(craftd: Daemon, client: Client, asked: argparse.Namespace) -> list[Sample]:
    """All the jobs, with pauses in which memory is read."""

    def draw(i: int) -> None:
        daemon.finish(client, _request(asked, f"a red apple {i}", seed=i))

    marks = [0, max(1, asked.jobs // 10), max(1, asked.jobs // 2), asked.jobs]
    samples = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for begin, end in itertools.pairwise(marks):
            list(pool.map(draw, range(begin, end)))
            samples.append(_sample(craftd, client, end))
    return samples


def _request(asked: argparse.Namespace, prompt: str, **more: int) -> jobs_pb2.CreateJobRequest:
    return daemon.request(prompt, steps=asked.steps, width=asked.side, height=asked.side, **more)


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
