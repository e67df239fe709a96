"""The rule of placement under a load that no machine here could hold, against two simpler rules.

    python -m benchmarks.fleet_simulation [--workers 1,8,64,512] [--jobs N]

Simulated time, the real rule (craftd.scheduler.placement). Jobs of one image arrive at random, as many as keep the
workers half busy with drawing; their models are 50 and their LoRAs 1,000, asked for as Zipf has it (the n-th is wanted
1/n times as often). A worker holds two models and 64 LoRAs and draws one image after another. FIFO takes whoever is
free first, random anybody.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from craftd.scheduler import placement
from craftd.scheduler.placement import Place, Times

from benchmarks import figures
from benchmarks.figures import Figure

TIMES = Times(load_s=20.0, image_s=3.0)
LORA_S = 0.3
MODELS, LORAS, HELD_MODELS, HELD_LORAS = 50, 1000, 2, 64
_BUSY = 0.5


@dataclass
class Worker:
    free_at: float = 0.0
    models: OrderedDict[int, None] = field(default_factory=OrderedDict)
    loras: OrderedDict[int, None] = field(default_factory=OrderedDict)

    def draw(self, now: float, model: int, lora: int) -> tuple[float, bool, bool]:
        """(what the job waited, whether its model and its LoRA were there)."""
        had_model, had_lora = model in self.models, lora in self.loras
        _use(self.models, model, HELD_MODELS)
        _use(self.loras, lora, HELD_LORAS)
        begins = max(now, self.free_at) + (0 if had_model else TIMES.load_s) + (0 if had_lora else LORA_S)
        self.free_at = begins + TIMES.image_s
        return begins - now, had_model, had_lora

    def place(self, now: float, model: int, lora: int) -> Place:
        has_model = model in self.models
        return Place(
            starts_in_s=0.0,
            has_model=has_model,
            lacking_loras=int(lora not in self.loras),
            rows=round(max(0.0, self.free_at - now) / TIMES.image_s),
            is_training=False,
            evicts=not has_model and len(self.models) == HELD_MODELS,
            last_used=self.free_at,
        )


Rule = Callable[[Sequence[Worker], float, int, int], int]


def by_placement(workers: Sequence[Worker], now: float, model: int, lora: int) -> int:
    return placement.choose([worker.place(now, model, lora) for worker in workers], TIMES).index


def fifo(workers: Sequence[Worker], now: float, model: int, lora: int) -> int:
    return min(range(len(workers)), key=lambda one: workers[one].free_at)


def at_random(workers: Sequence[Worker], now: float, model: int, lora: int) -> int:
    return random.Random(f"{now}{model}{lora}").randrange(len(workers))


RULES: dict[str, Rule] = {"placement": by_placement, "FIFO": fifo, "random": at_random}


@dataclass(frozen=True)
class Outcome:
    """Holds what a simulated load came to; the first tenth of the jobs is not counted."""

    waits_s: Sequence[float]
    loads_an_hour: float  # of models, a worker
    resident: float  # share of jobs that found model and LoRA there

    def percentile(self, share: float) -> float:
        return sorted(self.waits_s)[int(share * (len(self.waits_s) - 1))]


def simulate(rule: Rule, workers: int, jobs: int, seed: int) -> Outcome:
    draw, pool = random.Random(seed), [Worker() for _ in range(workers)]
    models, loras = _zipf(MODELS), _zipf(LORAS)
    now, waits, found, loads, since = 0.0, [], [], 0, 0.0
    for number in range(jobs):
        now += draw.expovariate(_BUSY * workers / TIMES.image_s)
        model, lora = _one_of(models, draw), _one_of(loras, draw)
        waited, had_model, had_lora = pool[rule(pool, now, model, lora)].draw(now, model, lora)
        if number >= jobs // 10:
            since = since or now
            waits.append(waited)
            found.append(had_model and had_lora)
            loads += not had_model
    return Outcome(waits, loads / workers / ((now - since) / 3600), statistics.mean(found))


def tenants(seed: int) -> float:
    """Share of jobs that find everything resident: 16 tenants with a model and three LoRAs of their own, 4 workers."""
    draw, pool = random.Random(seed), [Worker() for _ in range(4)]
    found, now = [], 0.0
    for _ in range(4000):
        now += draw.expovariate(0.7 * 4 / TIMES.image_s)
        tenant = draw.randrange(16)
        model, lora = tenant % 4, tenant * 3 + draw.randrange(3)
        _, had_model, had_lora = pool[by_placement(pool, now, model, lora)].draw(now, model, lora)
        found.append(had_model and had_lora)
    return statistics.mean(found[400:])


def _use(kept: OrderedDict[int, None], one: int, most: int) -> None:
    kept[one] = None
    kept.move_to_end(one)
    while len(kept) > most:
        kept.popitem(last=False)


def _zipf(count: int) -> list[float]:
    return list(accumulate(1 / number for number in range(1, count + 1)))


def _one_of(weights: Sequence[float], draw: random.Random) -> int:
    return draw.choices(range(len(weights)), cum_weights=weights)[0]


def main() -> int:
    asked = _parse()
    print("| workers | rule | wait p50 | wait p99 | model loads an hour and worker | found all resident |")
    print("|---|---|---|---|---|---|")
    for count in map(int, asked.workers.split(",")):
        for name, rule in RULES.items():
            one = simulate(rule, count, asked.jobs, seed=12)
            waits = f"{one.percentile(0.5):.1f} s | {one.percentile(0.99):.0f} s"
            print(f"| {count} | {name} | {waits} | {one.loads_an_hour:.1f} | {one.resident:.0%} |", flush=True)
    shares = [tenants(seed) for seed in range(5)]
    claim = "jobs of 16 tenants that find everything resident on 4 workers"
    found: list[Figure] = [figures.of_rounds(claim, "a budget", shares, at_least=0.9)]
    return figures.tell(found)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", default="1,8,64,512")
    parser.add_argument("--jobs", type=int, default=4000)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
