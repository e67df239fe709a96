"""How late the daemon's event loop is while every HTTP operation is fuzzed.

    python -m benchmarks.loop_lag [--examples N] [--fuzzers N]

A real craftd with HTTP, and the worker that draws in no time, so that the front is what is busy.
Several processes at once fuzz it as tests/http/test_fuzz.py does: with what the schema allows and
with what it does not. The daemon itself notes how late its loop is (`craft_loop_lag_seconds` in
/metrics); beside that stands the same daemon while nothing is asked.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import requests
from prometheus_client.parser import text_string_to_metric_families

from benchmarks import figures
from benchmarks.figures import Figure
from tests.http.shim import Shim, give_lora, serving
from tests.http.test_fuzz import Fuzzer, names_there, operations

MOST_S = 0.02
IDLE_S = 10.0
_NAME = "craft_loop_lag_seconds"
_LIMITS = {"SIDE": "128", "PIXELS": "16384", "STEPS": "20", "COUNT": "4"}


@dataclass(frozen=True)
class Lags:
    """How many samples were at most so many seconds late, by the histogram's bounds."""

    within: Mapping[float, float]

    def __sub__(self, before: Lags) -> Lags:
        return Lags({bound: count - before.within[bound] for bound, count in self.within.items()})

    @property
    def count(self) -> float:
        return self.within[float("inf")]

    def share(self, seconds: float) -> float:
        return self.within[seconds] / self.count

    def bound(self, share: float) -> float:
        """The least of the bounds, in ms, that so great a share keeps."""
        return 1000 * min(bound for bound, count in self.within.items() if count >= share * self.count)


def main() -> int:
    asked = _parse()
    with serving(**{f"CRAFT_LIMITS_MAX_{name}": most for name, most in _LIMITS.items()}) as shim:
        give_lora(shim)
        key = shim.key("fuzz", admin=True)
        names = names_there(shim, key)
        start = _read(shim, key)
        time.sleep(IDLE_S)
        idle = _read(shim, key)
        requested = _fuzz(shim, key, names, asked)
        fuzzed = _read(shim, key) - idle
    idle = idle - start
    print(f"{requested} requests; {fuzzed.count:.0f} samples under fuzz, {idle.count:.0f} at rest")
    return figures.tell([_figure("while fuzzed", fuzzed, at_least=0.99), _figure("at rest", idle)])


def _figure(when: str, lags: Lags, **goal: float) -> Figure:
    claim = f"the loop's share of calls within {MOST_S * 1000:.0f} ms of their time, {when}"
    claim += f" (p50, p99, worst: at most {', '.join(f'{lags.bound(share):g}' for share in (0.5, 0.99, 1))} ms)"
    share = lags.share(MOST_S)
    return Figure(claim, "all of them", share, share, share, **goal)


def _fuzz(shim: Shim, key: str, names: Mapping[str, str], asked: argparse.Namespace) -> int:
    """How many requests were sent."""
    with ProcessPoolExecutor(asked.fuzzers, get_context("spawn")) as pool:
        sent = [pool.submit(_one_fuzzer, shim.url, key, names, asked.examples) for _ in range(asked.fuzzers)]
        return sum(one.result() for one in sent)


def _one_fuzzer(url: str, key: str, names: Mapping[str, str], examples: int) -> int:
    with requests.Session() as session:
        fuzzer = Fuzzer(url, session, key, names, examples)
        for operation in operations(url):
            fuzzer.fuzz(operation)
    return fuzzer.answers.total()


def _read(shim: Shim, key: str) -> Lags:
    text = shim.call("GET", "/metrics", key).text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return Lags({float(one.labels["le"]): one.value for one in samples if one.name == f"{_NAME}_bucket"})


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=20, help="for each operation and fuzzer")
    parser.add_argument("--fuzzers", type=int, default=3, help="processes")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
