"""Whose turn is it? Fair between owners, interactive before batch, suspects first and alone.

Pure policy over job ids. Fairness counts rows: each owner has a clock that runs by the
rows it was served; the owner whose clock is furthest behind is next (start-time fair
queueing). Who comes back after a pause starts at the others' time, not behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from craftd.jobs.job import Priority


@dataclass(frozen=True)
class Waiting:
    """A place in the queue."""

    job_id: str
    owner: str
    priority: Priority
    rows: int
    order: int  # of arrival; kept when a job returns
    is_suspect: bool = False


class FairQueue:
    def __init__(self) -> None:
        self._waiting: dict[str, Waiting] = {}
        self._clocks: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._waiting

    def push(self, waiting: Waiting) -> None:
        if not any(other.owner == waiting.owner for other in self._waiting.values()):
            others = [self._clocks.get(other.owner, 0) for other in self._waiting.values()]
            self._clocks[waiting.owner] = max(self._clocks.get(waiting.owner, 0), min(others, default=0))
        self._waiting[waiting.job_id] = waiting

    def remove(self, job_id: str) -> None:
        self._waiting.pop(job_id, None)

    def head(self, is_open: Callable[[Waiting], bool] = lambda _: True) -> Waiting | None:
        """Whose turn it is, of those that are open; it stays in the queue until `serve`."""
        open_ones = (one for one in self._waiting.values() if is_open(one))
        return min(open_ones, key=lambda one: _rank(one, self._clocks), default=None)

    def serve(self, waiting: Waiting) -> None:
        """Take it out, and count its rows as its owner's."""
        self.remove(waiting.job_id)
        self._clocks[waiting.owner] = self._clocks.get(waiting.owner, 0) + waiting.rows
        if not self._waiting:
            self._clocks.clear()

    def positions(self) -> dict[str, int]:
        """For each job, how many go before it."""
        return {waiting.job_id: place for place, waiting in enumerate(self._in_order())}

    def _in_order(self) -> Iterator[Waiting]:
        """As if everything were served from now on."""
        clocks = dict(self._clocks)
        lines = self._lines()
        while lines:
            key = min(lines, key=lambda one: _rank(lines[one][-1], clocks))
            waiting = lines[key].pop()
            if not lines[key]:
                del lines[key]
            clocks[waiting.owner] = clocks.get(waiting.owner, 0) + waiting.rows
            yield waiting

    def _lines(self) -> dict[tuple[bool, Priority, str], list[Waiting]]:
        """The jobs that differ in their order alone, the next one last."""
        lines: dict[tuple[bool, Priority, str], list[Waiting]] = {}
        for waiting in sorted(self._waiting.values(), key=lambda one: -one.order):
            lines.setdefault((waiting.is_suspect, waiting.priority, waiting.owner), []).append(waiting)
        return lines


def _rank(waiting: Waiting, clocks: dict[str, int]) -> tuple[bool, int, int, int]:
    return not waiting.is_suspect, int(waiting.priority), clocks.get(waiting.owner, 0), waiting.order
