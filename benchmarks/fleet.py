"""This measures a queue with many workers: its rate, how soon a dead one's job goes on, what placing a job costs.

    python -m benchmarks.fleet [--workers 1,4,16,64] [--rounds N]

A real craftd with workers that need no torch. Each job lasts a second, and each worker draws two at once: one
that fits, one that waits. The rate is of jobs that end while all workers are busy. A worker is ended by SIGKILL.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import time
from datetime import datetime

import psutil
from craft_cli.connection.client import Client
from craftd.scheduler import placement

from benchmarks import daemon, figures
from benchmarks.daemon import Daemon
from benchmarks.figures import Figure

JOB = {"width": 64, "height": 64, "steps": 20}  # 50 ms each
_AT_ONCE = 2
_JOBS_EACH = 8  # of each worker in a round
_KNOWN = 512


def fleet(workers: int) -> dict[str, str | int]:
    return {
        "WORKER_MODULE": "craftd.fakeworker",
        "WORKER_DEVICES": f"cpu*{workers}",
        "WORKER_MAX_ROWS": 1,
        "DAEMON_QUEUE_LIMIT": 100_000,
        "DAEMON_KEEP_ALIVE_S": -1,
    }


def rate(workers: int, rounds: int) -> list[float]:
    """Finished jobs a second, each round, once every worker has started."""
    with daemon.running(**fleet(workers)) as craftd:
        client = craftd.client()
        _draw(client, workers * _AT_ONCE * 2)
        while sum(bool(one.pid) for one in client.status().workers) < workers:
            _draw(client, workers * _AT_ONCE * 2)
        found = []
        for _ in range(rounds):
            began = time.perf_counter()
            _draw(client, workers * _JOBS_EACH)
            found.append(workers * _JOBS_EACH / (time.perf_counter() - began))
        client.close()
        return found


def _draw(client: Client, jobs: int) -> None:
    ids = [client.create_job(daemon.request("a [slow] apple", seed=number, **JOB)).id for number in range(jobs)]
    for job in ids:
        for event in client.watch_job(job):
            if event.WhichOneof("event") == "finished":
                break


def deaths(rounds: int) -> list[float]:
    """Seconds from a worker's SIGKILL to its job's next dispatch, while another worker is there."""
    with daemon.running(**fleet(2)) as craftd:
        client = craftd.client()
        _draw(client, 8)
        return [_death(craftd, client) for _ in range(rounds)]


def _death(craftd: Daemon, client: Client) -> float:
    job = client.create_job(daemon.request("a [slow] apple", **JOB)).id
    for event in client.watch_job(job):
        if event.WhichOneof("event") == "started":
            break
    name = client.get_job(job).worker
    killed = time.time()
    os.kill(next(one.pid for one in client.status().workers if one.name == name), signal.SIGKILL)
    for event in client.watch_job(job):
        if event.WhichOneof("event") == "finished":
            break
    again = (one for one in map(json.loads, client.watch_logs(1000, False)) if one.get("job") == job)
    moment = next(one["time"] for one in again if one["event"] == "job dispatched" and one["epoch"] == 2)
    return datetime.fromisoformat(moment).timestamp() - killed


def placing(workers: int, rounds: int) -> list[float]:
    """Microseconds to choose among so many places."""
    draw = random.Random(1)
    places = [
        placement.Place(
            starts_in_s=0.0,
            has_model=draw.random() < 0.3,
            lacking_loras=draw.randrange(3),
            rows=draw.randrange(20),
            is_training=False,
            evicts=False,
            last_used=draw.random(),
        )
        for _ in range(workers)
    ]
    found = []
    for _ in range(rounds):
        began = time.perf_counter()
        placement.choose(places, placement.Times(10.0, 2.0))
        found.append((time.perf_counter() - began) * 1e6)
    return found


def front_mb(workers: int) -> float:
    """Resident memory of a front whose workers have not started."""
    with daemon.running(**fleet(workers)) as craftd:
        craftd.client().status()
        return float(psutil.Process(craftd.pid).memory_info().rss / 1e6)


def main() -> int:
    asked = _parse()
    counts = [int(count) for count in asked.workers.split(",")]
    found: list[Figure] = []
    alone: list[float] = []
    for count in counts:
        rates = rate(count, asked.rounds)
        alone = alone or [one / count for one in rates]
        print(f"{count} workers:", *(f"{one:.2f}" for one in rates), "jobs a second", flush=True)
        ratios = [one / (count * max(alone)) for one in rates]
        found.append(figures.of_rounds(f"rate of {count} workers", f"{count} times one", ratios, at_least=0.95))
    took = deaths(asked.rounds)
    found.append(figures.of_rounds("a worker's death to its job's dispatch", "a budget", took, unit="s", at_most=1.0))
    costs = placing(_KNOWN, 200)
    found.append(figures.best_of(f"choosing among {_KNOWN} places", "a budget", costs, unit="us", at_most=50.0))
    more = (front_mb(64) - front_mb(1)) / 63
    found.append(Figure("memory of the front for a worker more", "a budget", more, more, more, unit="MB", at_most=2.0))
    return figures.tell(found)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--workers", default="1,4,16,64", help="how many, comma between; the first is what counts as one"
    )
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
