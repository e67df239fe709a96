"""What a benchmark found, in words for people and as one last line of JSON for `python -m benchmarks`."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Figure:
    """One claim and what was measured of it; `low` and `high` are its spread."""

    claim: str
    alternative: str
    value: float
    low: float
    high: float
    unit: str = ""  # empty: a ratio
    at_most: float | None = None
    at_least: float | None = None

    @property
    def is_met(self) -> bool:
        return (self.at_most is None or self.value <= self.at_most) and (
            self.at_least is None or self.value >= self.at_least
        )

    @property
    def goal(self) -> str:
        if self.at_most is not None:
            return f"<= {self._written(self.at_most)}"
        return f">= {self._written(self.at_least)}" if self.at_least is not None else "as it goes"

    @property
    def measured(self) -> str:
        return f"{self._written(self.value)} ({self._number(self.low)} to {self._number(self.high)})"

    def _written(self, number: float) -> str:
        return f"{self._number(number)} {self.unit}".rstrip()

    def _number(self, number: float) -> str:
        return f"{number:.1f}" if self.unit == "MB" else f"{number:.3f}"


def of_rounds(claim: str, alternative: str, values: Iterable[float], **goal: float | str) -> Figure:
    """The median of several rounds, and the least and the most of them."""
    found = list(values)
    return Figure(claim, alternative, statistics.median(found), min(found), max(found), **goal)  # type: ignore[arg-type]


def best_of(claim: str, alternative: str, values: Iterable[float], **goal: float | str) -> Figure:
    """The least of several times, which other load on the machine touches last; the spread up to the median."""
    found = list(values)
    best = min(found)
    return Figure(claim, alternative, best, best, statistics.median(found), **goal)  # type: ignore[arg-type]


def tell(figures: Sequence[Figure]) -> int:
    """Print them; the exit status: 1 where a goal was missed."""
    for figure in figures:
        missed = "" if figure.is_met else "   MISSED"
        print(f"{figure.claim}: {figure.measured}, goal {figure.goal}, against {figure.alternative}{missed}")
    print(json.dumps({"figures": [asdict(figure) for figure in figures]}), flush=True)
    return 0 if all(figure.is_met for figure in figures) else 1


def table(found: Mapping[str, Sequence[Figure]]) -> str:
    """In Markdown; what was found, by the benchmark and its options."""
    lines = ["| Claim | Against | Goal | Measured (spread) | | Command |", "|---|---|---|---|---|---|"]
    for name, measured in found.items():
        for one in measured:
            met = "met" if one.is_met else "**missed**"
            cells = (one.claim, one.alternative, one.goal, one.measured, met, f"`python -m benchmarks.{name}`")
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def read(output: str) -> list[Figure] | None:
    """What `tell` printed last; None where a benchmark did not come so far."""
    last = output.strip().rpartition("\n")[2]
    try:
        return [Figure(**one) for one in json.loads(last)["figures"]]
    except (ValueError, KeyError, TypeError):
        return None
