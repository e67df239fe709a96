"""Scheduling within the batch: which rows join it and which are computed next, as plain functions without a device.

Fair between owners, interactive before batch work, and no group of rows waits for ever:
batch work gets every eighth tick even where interactive work never ends.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from craftd.worker.engine.row import Row

BATCH_SHARE = 8  # one tick of so many goes to batch work, whatever else waits
QUANTUM_S = 5.0  # how long a model keeps the memory that another one's jobs wait for


def urgency(row: Row) -> tuple[bool, int]:
    """Rows are sorted by it: interactive ones first, then as they came."""
    return (not row.job.is_interactive, row.order)


def pick_to_admit(waiting: Sequence[Row], active: Iterable[Row], is_open: Callable[[Row], bool]) -> Row | None:
    """The next row to join: interactive first, then the owner with the fewest rows, then the oldest."""
    held: dict[str, int] = defaultdict(int)
    for row in active:
        held[row.job.owner] += 1
    candidates = [row for row in waiting if is_open(row)]
    return min(
        candidates,
        key=lambda row: (not row.job.is_interactive, held[row.job.owner], row.order),
        default=None,
    )


def pick_batch(active: Sequence[Row], tick: int, limit: Callable[[Row], int]) -> list[Row]:
    """The rows of the next model call: one group, longest unserved first, as far as `limit` pixels go."""
    candidates = _favoured(active, tick)
    if not candidates:
        return []
    first = min(candidates, key=_turn)
    mates = sorted((row for row in active if row.group == first.group), key=_turn)
    return [first, *_that_fit([row for row in mates if row is not first], limit(first) - first.cost)]


def must_yield(wanted_since: float | None, now: float, quantum_s: float = QUANTUM_S) -> bool:
    """Whether models in memory stop taking rows, because another model has waited for room long enough."""
    return wanted_since is not None and now - wanted_since >= quantum_s


def _favoured(active: Sequence[Row], tick: int) -> Sequence[Row]:
    interactive = [row for row in active if row.job.is_interactive]
    others = [row for row in active if not row.job.is_interactive]
    if tick % BATCH_SHARE == BATCH_SHARE - 1:
        return others or interactive
    return interactive or others


def _turn(row: Row) -> tuple[int, int]:
    return (row.last_tick, row.order)


def _that_fit(rows: Sequence[Row], room: int) -> list[Row]:
    taken = []
    for row in rows:
        if row.cost <= room:
            taken.append(row)
            room -= row.cost
    return taken
