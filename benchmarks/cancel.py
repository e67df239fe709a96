"""Cancel: from the call of CancelJob until the worker is idle, against one step of the same job.

    python -m benchmarks.cancel [--rounds N] [--side PIXELS]

A real craftd with the built-in model. A step's time is the median of those before the cancel; the
call falls somewhere inside a step, at another place each round.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import time

from craft_cli.connection.client import Client
from craft_protos import daemon_pb2

from benchmarks import daemon, figures

STEPS_BEFORE = 8
BEYOND_S = 0.1


def main() -> int:
    asked = _parse()
    with daemon.running() as craftd:
        client = craftd.client()
        daemon.finish(client, daemon.request("a red apple", steps=2, width=asked.side, height=asked.side))
        found = [_cancel_once(client, asked.side, i / asked.rounds) for i in range(asked.rounds)]
        client.close()
    step = statistics.median(step_s for step_s, _ in found)
    ratios = sorted(idle_s / step_s for step_s, idle_s in found)
    print(f"cancel to idle / one step: {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")
    idle = (idle_s for _, idle_s in found)
    against = f"one step ({step:.3f} s) and 0.1 s"
    claim = figures.of_rounds("CancelJob to worker idle", against, idle, unit="s", at_most=step + BEYOND_S)
    return figures.tell([claim])


def _cancel_once(client: Client, side: int, place: float) -> tuple[float, float]:
    """(seconds of one step, seconds from the call until the worker is idle); `place` in the step is 0 to 1."""
    job = client.create_job(daemon.request("a red apple", steps=1000, width=side, height=side))
    step_s = _watch_steps(client, job.id)
    time.sleep(step_s * place)
    began = time.perf_counter()
    client.cancel_job(job.id)
    while client.status().workers[0].state != daemon_pb2.WORKER_STATE_IDLE:
        time.sleep(0.0005)
    return step_s, time.perf_counter() - began


def _watch_steps(client: Client, job_id: str) -> float:
    """A step's median time, once enough have been made."""
    times: list[float] = []
    for event in client.watch_job(job_id):
        if event.WhichOneof("event") == "step":
            times.append(time.perf_counter())
        if len(times) > STEPS_BEFORE:
            break
    return statistics.median(after - before for before, after in itertools.pairwise(times))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--side", type=int, default=256)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
