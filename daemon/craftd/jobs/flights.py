"""What the worker has been given and not yet given back."""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass
class Flight:
    """One dispatch of a job: the images that are still to come."""

    job_id: str
    epoch: int
    is_suspect: bool
    indices: set[int] = field(default_factory=set)
    is_training: bool = False
    preview_every: int = 0  # steps, as the worker was told last
    alone_until: float = math.inf  # a suspect's: from then on others may go beside it (monotonic)


class Flights:
    """Frames about a dispatch that isn't here are late, and dropped."""

    def __init__(self) -> None:
        self._flights: dict[tuple[str, int], Flight] = {}

    def __bool__(self) -> bool:
        return bool(self._flights)

    @property
    def training(self) -> Flight | None:
        """There is one at most."""
        return next((flight for flight in self._flights.values() if flight.is_training), None)

    @property
    def are_drawing(self) -> bool:
        return any(not flight.is_training for flight in self._flights.values())

    def add(self, flight: Flight) -> None:
        self._flights[flight.job_id, flight.epoch] = flight

    def find(self, job_id: str, epoch: int) -> Flight | None:
        return self._flights.get((job_id, epoch))

    def remove(self, job_id: str, epoch: int) -> Flight | None:
        return self._flights.pop((job_id, epoch), None)

    def crash(self) -> list[Flight]:
        """The worker is gone: take them all out."""
        flights = list(self._flights.values())
        self._flights.clear()
        return flights

    @property
    def alone_until(self) -> float | None:
        """When others may join a suspect that goes on."""
        times = [one.alone_until for one in self._flights.values() if one.is_suspect]
        return min((at for at in times if at < math.inf), default=None)

    def let_join(self, now: float) -> None:
        """Who has been alone for long enough is so no more."""
        for flight in self._flights.values():
            flight.is_suspect = flight.is_suspect and now < flight.alone_until

    def have_room(self, capacity_rows: int, *, is_suspect: bool, is_training: bool = False) -> bool:
        """A little more than fits, so that the worker never waits for us; a suspect goes alone, a training beside."""
        if is_suspect or any(flight.is_suspect for flight in self._flights.values()):
            return not self._flights
        return is_training or self._rows < capacity_rows + max(1, capacity_rows // 4)

    @property
    def _rows(self) -> int:
        return sum(len(flight.indices) for flight in self._flights.values())
