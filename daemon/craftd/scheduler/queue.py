"""Whose turn is it? Fair between owners, interactive before batch, suspects first and alone.

Pure policy over job ids. Fairness counts rows: each owner has a clock that runs by the
rows it was served; the owner whose clock is furthest behind is next (start-time fair
queueing). Who comes back after a pause starts at the others' time, not behind it.

The jobs that differ in their order alone (of one owner and priority) form a line. A job's
clock at its start follows from the rows ahead of it in its line, so its place among all
is found by bisection in each line, and nothing here takes longer for a longer queue.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate

from craftd.jobs.job import Kind, Priority


@dataclass(frozen=True)
class Waiting:
    """A place in the queue."""

    job_id: str
    owner: str
    priority: Priority
    rows: int
    order: int  # of arrival; kept when a job returns
    is_suspect: bool = False
    kind: Kind = Kind.GENERATE


_Class = tuple[bool, int]  # who is in a smaller one goes first, whatever the clocks say


@dataclass
class _Line:
    """The jobs of one owner and class, in their order. `ahead`: rows before each, counted from the line's start."""

    jobs: list[Waiting] = field(default_factory=list)
    ahead: list[int] = field(default_factory=list)
    first: int = 0  # those before it were served

    def __len__(self) -> int:
        return len(self.jobs) - self.first

    def __iter__(self) -> Iterator[Waiting]:
        return iter(self.jobs[place] for place in range(self.first, len(self.jobs)))

    @property
    def head(self) -> Waiting:
        return self.jobs[self.first]

    @property
    def rows(self) -> int:
        return self.ahead[-1] + self.jobs[-1].rows - self.ahead[self.first] if len(self) else 0

    def insert(self, waiting: Waiting) -> None:
        if not self.jobs or waiting.order > self.jobs[-1].order:
            self.ahead.append(self.ahead[-1] + self.jobs[-1].rows if self.jobs else 0)
            self.jobs.append(waiting)
        else:  # it returns to its place
            self._rebuild([*self, waiting])

    def remove(self, waiting: Waiting) -> None:
        if self.head is waiting:
            self.first += 1
            if self.first > len(self.jobs) // 2:  # the served ones go now and then
                self._rebuild(list(self))
        elif self.jobs[-1] is waiting:
            self.jobs.pop()
            self.ahead.pop()
        else:
            self._rebuild([one for one in self if one is not waiting])

    def rows_ahead(self, waiting: Waiting) -> int:
        place = bisect_left(self.jobs, waiting.order, lo=self.first, key=lambda one: one.order)
        return self.ahead[place] - self.ahead[self.first]

    def count_before(self, clock: int, start: int, order: int) -> int:
        """How many of it are served before a job of another line whose owner's clock is `start` then.

        `clock`: this line's owner's, when its head is served.
        """
        base = clock - self.ahead[self.first]
        places = range(self.first, len(self.jobs))
        return bisect_left(places, (start, order), key=lambda place: (base + self.ahead[place], self.jobs[place].order))

    def _rebuild(self, jobs: list[Waiting]) -> None:
        self.jobs = sorted(jobs, key=lambda one: one.order)
        self.ahead = list(accumulate((one.rows for one in self.jobs[:-1]), initial=0)) if jobs else []
        self.first = 0


class FairQueue:
    """The jobs of one kind that wait."""

    def __init__(self) -> None:
        self._waiting: dict[str, Waiting] = {}
        self._lines: dict[tuple[_Class, str], _Line] = {}
        self._counts: Counter[str] = Counter()  # jobs of each owner
        self._clocks: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._waiting

    def count_of(self, owner: str) -> int:
        return self._counts[owner]

    def push(self, waiting: Waiting) -> None:
        if not self._counts[waiting.owner]:
            others = [self._clocks.get(owner, 0) for owner in self._counts]
            self._clocks[waiting.owner] = max(self._clocks.get(waiting.owner, 0), min(others, default=0))
        self._waiting[waiting.job_id] = waiting
        self._counts[waiting.owner] += 1
        self._lines.setdefault((_class(waiting), waiting.owner), _Line()).insert(waiting)

    def remove(self, job_id: str) -> None:
        waiting = self._waiting.pop(job_id, None)
        if waiting is None:
            return
        key = (_class(waiting), waiting.owner)
        self._lines[key].remove(waiting)
        if not len(self._lines[key]):
            del self._lines[key]
        self._counts[waiting.owner] -= 1
        if not self._counts[waiting.owner]:
            del self._counts[waiting.owner]

    def head(self, is_open: Callable[[Waiting], bool] = lambda _: True) -> Waiting | None:
        """Whose turn it is, of those that are open; it stays in the queue until `serve`."""
        heads = (next((one for one in line if is_open(one)), None) for line in self._lines.values())
        return min((one for one in heads if one is not None), key=self._rank, default=None)

    def serve(self, waiting: Waiting) -> None:
        """Take it out, and count its rows as its owner's."""
        self.remove(waiting.job_id)
        self._clocks[waiting.owner] = self._clocks.get(waiting.owner, 0) + waiting.rows
        if not self._waiting:
            self._clocks.clear()

    def position(self, job_id: str) -> int:
        """How many go before it, as if everything were served from now on; 0 for one that does not wait."""
        waiting = self._waiting.get(job_id)
        if waiting is None:
            return 0
        own, mine = _class(waiting), self._lines[_class(waiting), waiting.owner]
        start = self._clock_at(own, waiting.owner) + mine.rows_ahead(waiting)
        return sum(
            len(line) if other < own else line.count_before(self._clock_at(own, owner), start, waiting.order)
            for (other, owner), line in self._lines.items()
            if other <= own
        )

    def _clock_at(self, of: _Class, owner: str) -> int:
        """An owner's clock when the first of that class is served: all its jobs of smaller classes were."""
        before = (line.rows for (other, whose), line in self._lines.items() if whose == owner and other < of)
        return self._clocks.get(owner, 0) + sum(before)

    def _rank(self, waiting: Waiting) -> tuple[_Class, int, int]:
        return _class(waiting), self._clocks.get(waiting.owner, 0), waiting.order


def _class(waiting: Waiting) -> _Class:
    return not waiting.is_suspect, int(waiting.priority)


class JobQueue:
    """All jobs that wait. Each kind has its own turns: workers train beside what they draw."""

    def __init__(self) -> None:
        self._queues = {kind: FairQueue() for kind in Kind}

    def __len__(self) -> int:
        return sum(len(queue) for queue in self._queues.values())

    def __contains__(self, job_id: str) -> bool:
        return any(job_id in queue for queue in self._queues.values())

    def count(self, kind: Kind) -> int:
        return len(self._queues[kind])

    def count_of(self, owner: str) -> int:
        return sum(queue.count_of(owner) for queue in self._queues.values())

    def push(self, waiting: Waiting) -> None:
        self._queues[waiting.kind].push(waiting)

    def remove(self, job_id: str) -> None:
        for queue in self._queues.values():
            queue.remove(job_id)

    def head(self, kind: Kind, is_open: Callable[[Waiting], bool] = lambda _: True) -> Waiting | None:
        """Whose turn it is among that kind, of those that are open; it stays in the queue until `serve`."""
        return self._queues[kind].head(is_open)

    def serve(self, waiting: Waiting) -> None:
        """Take it out, and count its rows as its owner's."""
        self._queues[waiting.kind].serve(waiting)

    def position(self, job_id: str) -> int:
        """How many of its kind go before it; 0 for one that does not wait."""
        return sum(queue.position(job_id) for queue in self._queues.values())
