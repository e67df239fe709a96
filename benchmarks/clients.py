"""Pictures through craft, from CreateJob to finished, against diffusers in a process of its own.

    python -m benchmarks.clients [--rounds N] [--steps N] [--threads N] [--clients N]

A real craftd with the built-in model. Both sides are warm, have as many threads, the same prompts
and the same numbers, and take turns, so that other load on the machine meets both; craft's time
includes the queue, the database, PNG encoding and fsync, diffusers' ends with pixels in memory.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from craft_cli.connection.client import Client

from benchmarks import daemon, figures, reference
from benchmarks.reference import DEFAULTS, Reference

THINGS = ("apple", "rocket", "cat", "tree", "crown", "fish", "key", "boat", "star", "dog", "cup", "bell")
COLOURS = ("red", "green", "blue", "yellow", "pink", "orange", "purple")


class Sides:
    """craft with so many clients, and diffusers; each round has prompts that were never asked before."""

    def __init__(self, clients: Sequence[Client], steps: int, other: Reference) -> None:
        self._clients = clients
        self._steps = steps
        self._other = other
        self._asked = 0

    def one(self) -> float:
        """One picture: craft's time by diffusers'."""
        (prompt,), (seed,) = self._ask(1)
        began = time.perf_counter()
        daemon.finish(self._clients[0], daemon.request(prompt, seed=seed, steps=self._steps))
        return (time.perf_counter() - began) / self._other.seconds([prompt], [seed])

    def many(self) -> tuple[float, float]:
        """All clients at once: diffusers' time in one batch, and one by one, by craft's."""
        prompts, seeds = self._ask(len(self._clients))
        seconds = self._at_once(prompts, seeds)
        batch = self._other.seconds(prompts, seeds)
        return batch / seconds, self._other.seconds(prompts, seeds, one_by_one=True) / seconds

    def _at_once(self, prompts: Sequence[str], seeds: Sequence[int]) -> float:
        """From the moment that all clients may ask until the last has its end."""
        gate = threading.Barrier(len(self._clients) + 1)

        def draw(client: Client, prompt: str, seed: int) -> None:
            asked = daemon.request(prompt, seed=seed, steps=self._steps)
            gate.wait()
            daemon.finish(client, asked)

        with ThreadPoolExecutor(len(self._clients)) as pool:
            drawn = [pool.submit(draw, *each) for each in zip(self._clients, prompts, seeds, strict=True)]
            gate.wait()
            began = time.perf_counter()
            for one in drawn:
                one.result()
            return time.perf_counter() - began

    def _ask(self, count: int) -> tuple[list[str], list[int]]:
        numbers = range(self._asked, self._asked + count)
        self._asked += count
        prompts = [f"a {THINGS[i % len(THINGS)]} on a {COLOURS[i % len(COLOURS)]} background" for i in numbers]
        return prompts, list(numbers)


def main() -> int:
    asked = _parse()
    with (
        daemon.running(WORKER_THREADS=asked.threads) as craftd,
        reference.running(asked.threads, asked.steps) as other,
    ):
        clients = [craftd.client() for _ in range(asked.clients)]
        sides = Sides(clients, asked.steps, other)
        for _ in range(2):  # loads, warms up
            sides.one()
            sides.many()
        ones = [sides.one() for _ in range(asked.rounds * 2)]
        batches, loops = zip(*(sides.many() for _ in range(asked.rounds)), strict=True)
        for client in clients:
            client.close()
    at_once = f"{asked.clients} clients at once, pictures per second"
    return figures.tell(
        [
            figures.of_rounds(
                "one picture, CreateJob to finished", "the pipeline in process, warm", ones, at_most=1.03
            ),
            figures.of_rounds(at_once, f"diffusers, the same {asked.clients} as one batch", batches, at_least=0.95),
            figures.of_rounds(at_once, "diffusers, one by one", loops, at_least=1.0),
        ]
    )


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--steps", type=int, default=DEFAULTS["steps"])
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--clients", type=int, default=8)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
