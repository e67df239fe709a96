"""What the long storms have in common: a seed, counts, one line for people and one of JSON at the end."""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from tests.storms import checker
from tests.storms.journal import Violation

_EXAMPLES = 4  # violations of each kind that are told in full


@dataclass
class Outcome:
    """What a long storm came to. `seconds` are samples of times, told as percentiles."""

    counts: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    violations: list[Violation] = field(default_factory=list)

    def add(self, other: Outcome) -> None:
        for name, count in other.counts.items():
            self.counts[name] = self.counts.get(name, 0) + count
        for name, samples in other.seconds.items():
            self.seconds.setdefault(name, []).extend(samples)
        self.violations += other.violations

    @property
    def told(self) -> dict[str, object]:
        percentiles = {
            name: {"n": len(some), **{f"p{share}": round(percentile(some, share), 4) for share in (50, 90, 99, 100)}}
            for name, some in self.seconds.items()
            if some
        }
        kinds = Counter(one.kind for one in self.violations)
        return {"counts": self.counts, "seconds": percentiles, "violations": kinds}


def percentile(samples: Sequence[float], share: float) -> float:
    """Of samples, the value that `share` per cent of them do not exceed."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(share / 100 * len(ordered)))]


def main(
    name: str,
    description: str | None,
    storm: Callable[[argparse.Namespace], Awaitable[Outcome]],
    **counts: int | float,
) -> int:
    """Parse `--seed` and one option for each of `counts`, run, tell; 1 where anything was violated."""
    parser = argparse.ArgumentParser(
        prog=f"python -m tests.storms.{name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seed", type=int, default=None, help="replays the plan of a run that printed it")
    for option, usual in counts.items():
        parser.add_argument(f"--{option}", type=type(usual), default=usual, help=f"default: {usual}")
    asked = parser.parse_args()
    asked.seed = random.randrange(1 << 30) if asked.seed is None else asked.seed
    print(f"{name}: seed {asked.seed}", flush=True)
    began = time.monotonic()
    outcome = asyncio.run(storm(asked))  # type: ignore[arg-type]
    return _tell(name, asked.seed, time.monotonic() - began, outcome)


def _tell(name: str, seed: int, took_s: float, outcome: Outcome) -> int:
    told: Counter[str] = Counter()
    for violation in outcome.violations:
        told[violation.kind] += 1
        if told[violation.kind] <= _EXAMPLES:
            print(f"VIOLATION {violation}")
    numbers = ", ".join(f"{count:g} {what}" for what, count in outcome.counts.items())
    times = ", ".join(
        f"{what} p50 {percentile(some, 50):.3f} s, p99 {percentile(some, 99):.3f} s"
        for what, some in outcome.seconds.items()
        if some
    )
    found = checker.summary(outcome.violations)
    print(f"{name}: {numbers}{'; ' if times else ''}{times}; {found}; seed {seed}, {took_s:.0f} s")
    print(json.dumps({"storm": name, "seed": seed, "took_s": round(took_s, 1), **outcome.told}), flush=True)
    return 1 if outcome.violations else 0


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
