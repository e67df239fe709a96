"""What a worker has been given and has not given back yet."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass
class ActiveDispatch:
    """One job in a worker: the images that are still to come."""

    job_id: str
    epoch: int  # counts the job's dispatches: frames about an earlier one are late
    is_suspect: bool
    indices: set[int] = field(default_factory=set)
    is_training: bool = False
    model: str = ""
    preview_every: int = 0  # steps, as the worker was told last
    alone_until: float = math.inf  # a suspect's: from then on others may go beside it (monotonic)


_WARM_LORAS = 64


class WarmLoras:
    """The LoRAs that a worker drew with lately, and so has at hand: by sha256, the newest last."""

    def __init__(self) -> None:
        self._known: dict[str, None] = {}

    def use(self, loras: Iterable[str]) -> None:
        for sha256 in loras:
            self._known.pop(sha256, None)
            self._known[sha256] = None
        while len(self._known) > _WARM_LORAS:
            del self._known[next(iter(self._known))]

    def lacking(self, loras: Iterable[str]) -> int:
        """How many of them would have to be read first."""
        return sum(sha256 not in self._known for sha256 in loras)

    def forget(self) -> None:
        self._known.clear()


class Dispatches:
    """Those of one worker, by job and epoch."""

    def __init__(self) -> None:
        self._dispatches: dict[tuple[str, int], ActiveDispatch] = {}

    def __len__(self) -> int:
        return len(self._dispatches)

    @property
    def are_drawing(self) -> bool:
        return any(not one.is_training for one in self._dispatches.values())

    @property
    def are_training(self) -> bool:
        return any(one.is_training for one in self._dispatches.values())

    @property
    def rows(self) -> int:
        """Images that are still to come."""
        return sum(len(one.indices) for one in self._dispatches.values())

    def draw_with(self, model: str) -> bool:
        """One of them does: its model is there, or on its way."""
        return any(one.model == model for one in self._dispatches.values())

    def add(self, dispatch: ActiveDispatch) -> None:
        self._dispatches[dispatch.job_id, dispatch.epoch] = dispatch

    def find(self, job_id: str, epoch: int) -> ActiveDispatch | None:
        return self._dispatches.get((job_id, epoch))

    def remove(self, job_id: str, epoch: int) -> ActiveDispatch | None:
        return self._dispatches.pop((job_id, epoch), None)

    def remove_all(self) -> tuple[ActiveDispatch, ...]:
        """The worker is gone."""
        removed = tuple(self._dispatches.values())
        self._dispatches.clear()
        return removed

    @property
    def alone_until(self) -> float | None:
        """When others may join a suspect that goes on."""
        times = [one.alone_until for one in self._dispatches.values() if one.is_suspect]
        return min((at for at in times if at < math.inf), default=None)

    def let_join(self, now: float) -> None:
        """End the isolation of a suspect whose time alone is up."""
        for dispatch in self._dispatches.values():
            dispatch.is_suspect = dispatch.is_suspect and now < dispatch.alone_until

    def have_room(self, capacity_rows: int, *, is_suspect: bool, is_training: bool = False) -> bool:
        """A suspect goes alone, one training goes beside what is drawn.

        Drawing has room for a little more than fits, so that the worker never waits for us.
        """
        if is_suspect or any(one.is_suspect for one in self._dispatches.values()):
            return not self._dispatches
        if is_training:
            return not self.are_training
        return self.rows < capacity_rows + max(1, capacity_rows // 4)
