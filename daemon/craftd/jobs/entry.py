"""An unfinished job in the daemon's memory."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

from craftd.images.image import Image
from craftd.jobs.events import Queued
from craftd.jobs.job import Error, Job, JobView, State


@dataclass
class Entry:
    """The dispatcher owns it; one method per transition."""

    job: Job
    order: int
    images: dict[int, Image] = field(default_factory=dict)
    received: set[int] = field(default_factory=set)  # images that came, stored or about to be
    epoch: int = 0
    storing: int = 0
    last_watched: float = field(default_factory=time.monotonic)
    last_queued: Queued | None = None  # what its watchers heard last of its place

    @property
    def remaining(self) -> tuple[int, ...]:
        return tuple(index for index in self.job.spec.wanted if index not in self.received)

    @property
    def view(self) -> JobView:
        return JobView(self.job, tuple(self.images[index] for index in sorted(self.images)))

    def dispatch(self) -> None:
        self.epoch += 1
        self.job = replace(self.job, state=State.RUNNING, start_time=None)

    def start(self) -> None:
        if self.job.start_time is None:
            self.job = replace(self.job, start_time=time.time())

    def account(self, load_s: float, denoise_s: float) -> None:
        """Images of a job are drawn together: the longest says how long it took."""
        job = self.job
        self.job = replace(job, load_s=max(job.load_s, load_s), denoise_s=max(job.denoise_s, denoise_s))

    def requeue(self, *, is_suspect: bool, attempts: int) -> None:
        self.job = replace(self.job, state=State.QUEUED, start_time=None, is_suspect=is_suspect, attempts=attempts)

    def progressed(self) -> None:
        """A training that gets on is no suspect: its checkpoint is further than where a worker died."""
        self.job = replace(self.job, is_suspect=False, attempts=0)

    def succeeded(self) -> Job:
        return replace(self.job, state=State.SUCCEEDED, finish_time=time.time())

    def ended(self, state: State, error: Error | None) -> Job:
        return replace(self.job, state=state, finish_time=time.time(), error=error)
