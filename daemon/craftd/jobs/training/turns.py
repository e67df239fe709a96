"""When may a train job go to the worker? Pure policy over what waits and what is there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from craftd.jobs.entry import Entry
from craftd.jobs.flights import Flights
from craftd.jobs.queue import FairQueue, Waiting

ALONE_S = 60.0  # at most, of a training that a worker died of, perhaps: others wait so long


@dataclass(frozen=True)
class Turns:
    """`drawings` and `trainings` wait; one training at a time flies, beside what is drawn."""

    drawings: FairQueue
    trainings: FairQueue
    flights: Flights
    entries: Mapping[str, Entry]

    def may_train(self, waiting: Waiting, capacity_rows: int) -> bool:
        if self.flights.training is not None or self.is_held_back(self.entries[waiting.job_id]):
            return False
        suspect = self.drawings.head()
        if suspect is not None and suspect.is_suspect:  # those are soon done
            return False
        return self.flights.have_room(capacity_rows, is_suspect=waiting.is_suspect, is_training=True)

    @property
    def is_alone_next(self) -> bool:
        """A training that a worker died of, perhaps: it begins alone."""
        waiting = self.trainings.head()
        if waiting is None or not waiting.is_suspect:
            return False
        entry = self.entries[waiting.job_id]
        return not entry.storing and not self.is_held_back(entry)

    def is_held_back(self, entry: Entry) -> bool:
        """It wants the device only while nobody else does."""
        return entry.job.training.when_idle and (self.flights.are_drawing or len(self.drawings) > 0)

    def why_waiting(self, entry: Entry) -> str:
        """What a training waits for besides those ahead; "" for others."""
        if not entry.job.is_training:
            return ""
        if self.flights.training is not None:
            return "another training runs"
        return "waiting until nothing is drawn" if self.is_held_back(entry) else ""
