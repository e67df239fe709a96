"""What the queue itself costs: jobs that are drawn in no time, by eight clients; creates behind a long queue.

    python -m benchmarks.queue [--jobs N] [--clients N] [--rounds N] [--queued N]

A real craftd with the worker that needs no torch. The clients are processes of their own, each with one
job after another, from CreateJob to its end. The front's CPU time is the system's count for its process.
Then jobs are created, one after another, at a daemon where few wait and at one where many do, in turn.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import psutil
from craft_cli.connection.client import Client

from benchmarks import daemon, figures
from benchmarks.daemon import Daemon
from benchmarks.figures import Figure

FEW, CREATES = 100, 100
SMALL = {"width": 64, "height": 64, "steps": 1}
_ROOM = 1000  # in the queue, beyond what waits


def draw(address: str, jobs: int) -> int:
    """One client, in a process of its own: so many jobs, one after another."""
    client = Client(address)
    for number in range(jobs):
        daemon.finish(client, daemon.request("a red apple", seed=number, **SMALL))
    client.close()
    return jobs


def throughput(craftd: Daemon, clients: int, jobs: int, rounds: int) -> tuple[list[float], list[float]]:
    """(finished jobs a second, the front's CPU milliseconds a job), each round."""
    front = psutil.Process(craftd.pid)
    rates, costs = [], []
    with ProcessPoolExecutor(clients, mp_context=get_context("spawn")) as pool:
        list(pool.map(draw, [craftd.address] * clients, [2] * clients))  # loads, warms up
        for _ in range(rounds):
            before, began = _cpu_s(front), time.perf_counter()
            done = sum(pool.map(draw, [craftd.address] * clients, [jobs // clients] * clients))
            rates.append(done / (time.perf_counter() - began))
            costs.append((_cpu_s(front) - before) * 1000 / done)
    return rates, costs


def creates(client: Client) -> float:
    """A second, of jobs that wait; they are taken back afterwards."""
    ids, began = [], time.perf_counter()
    for number in range(CREATES):
        ids.append(client.create_job(daemon.request("[held] an apple", seed=number, **SMALL)).id)
    took = time.perf_counter() - began
    for job in ids:
        client.cancel_job(job)
    return CREATES / took


def fill(client: Client, queued: int) -> None:
    """Creates jobs until so many wait."""
    while (waiting := client.status().queued) < queued:
        for number in range(min(CREATES, queued - waiting)):
            client.create_job(daemon.request("[held] an apple", seed=number, **SMALL))


def in_turn(few: Client, many: Client, rounds: int) -> tuple[list[float], list[float]]:
    """Creates a second at either daemon, in turn, so that both feel what else the machine does."""
    pairs = [(creates(few), creates(many)) for _ in range(rounds)]
    return [one for one, _ in pairs], [other for _, other in pairs]


def listing(client: Client, page_size: int, rounds: int) -> list[float]:
    """Seconds for a page of the newest."""
    found = []
    for _ in range(rounds):
        began = time.perf_counter()
        page = list(client.list_jobs([], page_size))
        found.append(time.perf_counter() - began)
        assert len(page) == page_size
    return found


def main() -> int:
    asked = _parse()
    settings = {"WORKER_MODULE": "craftd.fakeworker", "DAEMON_QUEUE_LIMIT": asked.queued + _ROOM}
    found: list[Figure] = []
    with daemon.running(**settings) as craftd, daemon.running(**settings) as other:
        rates, costs = throughput(craftd, asked.clients, asked.jobs, asked.rounds)
        short, long = craftd.client(), other.client()
        fill(short, FEW)
        fill(long, asked.queued)
        few, many = in_turn(short, long, asked.rounds * 3)
        pages = listing(long, 1000, asked.rounds * 2)
        short.close()
        long.close()
    print("jobs a second:", *(f"{rate:.0f}" for rate in rates), " ms of the front a job:", *(f"{c:.2f}" for c in costs))
    print(f"creates a second, {FEW} waiting:", *(f"{rate:.0f}" for rate in few), flush=True)
    print(f"creates a second, {asked.queued} waiting:", *(f"{rate:.0f}" for rate in many), flush=True)
    clients = f"{asked.clients} clients, drawn in no time"
    found.append(figures.of_rounds("finished jobs a second", clients, rates, unit="/s", at_least=250.0))
    found.append(figures.of_rounds("CPU of the front a job", clients, costs, unit="ms", at_most=4.0))
    found.append(_ratio(asked.queued, few, many))
    found.append(figures.best_of("ListJobs, a page of 1,000", "a budget", pages, unit="s", at_most=0.1))
    return figures.tell(found)


def _ratio(queued: int, few: Sequence[float], many: Sequence[float]) -> Figure:
    claim, against = f"creates a second behind {queued:,} that wait", f"the same behind {FEW}"
    return figures.of_rounds(claim, against, [a / b for a, b in zip(many, few, strict=True)], at_least=0.9)


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=800)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--queued", type=int, default=5000)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
