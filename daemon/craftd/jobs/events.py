"""What watchers of a job hear, and the hub that tells them.

A slow watcher costs a bounded amount: of the events that replace each other (the step
of an image, the place in the queue) only the newest waits; images and the end are never lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from craftd.images.image import Image
from craftd.jobs.job import JobView
from craftd.training import progress


@dataclass(frozen=True)
class Snapshot:
    view: JobView


@dataclass(frozen=True)
class Queued:
    position: int
    why: str  # what is waited for besides those ahead; may be empty


@dataclass(frozen=True)
class Loading:
    model: str
    bytes_done: int
    bytes_total: int


@dataclass(frozen=True)
class Started:
    attempt: int
    device: str
    notice: str


@dataclass(frozen=True)
class Step:
    index: int
    step: int
    of: int
    preview: bytes


@dataclass(frozen=True)
class ImageMade:
    image: Image


@dataclass(frozen=True)
class Preparing:
    """Before a training's first step."""

    what: str
    done: int
    of: int


@dataclass(frozen=True)
class Trained:
    step: progress.Step


@dataclass(frozen=True)
class SampleMade:
    sample: progress.Sample
    data: bytes


@dataclass(frozen=True)
class Finished:
    view: JobView


Event = Snapshot | Queued | Loading | Started | Step | ImageMade | Preparing | Trained | SampleMade | Finished
_MOST_SAMPLES = 100  # of one step


class Subscription:
    """One watcher's events, in order, until Finished. None ends it early: the daemon stops."""

    def __init__(self, job_id: str, preview_every: int) -> None:
        self.job_id = job_id
        self.preview_every = preview_every
        self._pending: dict[tuple[str, int], Event | None] = {}
        self._has_some = asyncio.Event()

    def put(self, event: Event | None) -> None:
        key = _key(event)
        self._pending.pop(key, None)  # the newer one goes to the end
        self._pending[key] = event
        self._has_some.set()

    async def next(self) -> Event | None:
        while not self._pending:
            self._has_some.clear()
            await self._has_some.wait()
        return self._pending.pop(next(iter(self._pending)))


class Hub:
    """`changed` hears of the jobs whose watchers have come or gone."""

    def __init__(self) -> None:
        self._watchers: dict[str, list[Subscription]] = {}
        self.changed: Callable[[str], None] = lambda job_id: None

    def subscribe(self, job_id: str, preview_every: int = 0) -> Subscription:
        subscription = Subscription(job_id, preview_every)
        self._watchers.setdefault(job_id, []).append(subscription)
        self.changed(job_id)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        watchers = self._watchers[subscription.job_id]
        watchers.remove(subscription)
        if not watchers:
            del self._watchers[subscription.job_id]
        self.changed(subscription.job_id)

    def publish(self, job_id: str, event: Event) -> None:
        for subscription in self._watchers.get(job_id, ()):
            subscription.put(event)

    @property
    def watched(self) -> list[str]:
        """Jobs that somebody watches."""
        return list(self._watchers)

    def is_watched(self, job_id: str) -> bool:
        return job_id in self._watchers

    def preview_every(self, job_id: str) -> int:
        """The most frequent wish among the watchers; 0: nobody wants previews."""
        wishes = [one.preview_every for one in self._watchers.get(job_id, ()) if one.preview_every]
        return min(wishes, default=0)

    def close(self) -> None:
        """End every subscription: the daemon stops."""
        for watchers in self._watchers.values():
            for subscription in watchers:
                subscription.put(None)


def _key(event: Event | None) -> tuple[str, int]:
    match event:
        case Step(index=index):
            return "step", index
        case ImageMade(image=image):
            return "image", image.index
        case SampleMade(sample=sample):
            return "sample", sample.step * _MOST_SAMPLES + sample.place
        case _:
            return type(event).__name__, 0
