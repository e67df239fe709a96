"""Room in the queue: for everybody together, and for each key by its tier."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Protocol

from craft_protos.reasons import CraftError, invalid
from craft_protos.settings import Settings

from craftd.keys.caller import Caller

RETRY_AFTER_S = 2.0


@dataclass(frozen=True)
class Load:
    """What an owner has in the daemon."""

    queued: int = 0  # jobs
    images: int = 0  # still to be drawn


class Queue(Protocol):
    @property
    def is_draining(self) -> bool: ...

    @property
    def queued(self) -> int: ...

    def load_of(self, owner: str) -> Load: ...


@dataclass
class Quota:
    """Also counts the jobs that are being stored, which the queue does not know yet."""

    queue: Queue
    settings: Settings
    _jobs: Counter[str] = field(default_factory=Counter)
    _images: Counter[str] = field(default_factory=Counter)

    def check(self, caller: Caller, images: int = 0) -> None:
        """Whether another job of so many images may come. Raises DRAINING, QUEUE_FULL, RATE_LIMITED, INVALID_FIELD."""
        if self.queue.is_draining:
            raise draining()
        limit = self.settings.daemon.queue_limit
        if self.queue.queued + self._jobs.total() >= limit:
            raise _full(f"the queue is full ({limit} jobs)")
        if caller.key_id:
            self._check_share(caller, images)

    def reserve(self, owner: str, images: int) -> None:
        """A place in the queue, from `check` until the job is stored and the queue has it."""
        self._jobs[owner] += 1
        self._images[owner] += images

    def release(self, owner: str, images: int) -> None:
        self._jobs[owner] -= 1
        self._images[owner] -= images
        if not self._jobs[owner]:
            del self._jobs[owner], self._images[owner]

    def share_of(self, caller: Caller) -> int:
        """How many jobs of the caller's may wait."""
        limit = self.settings.daemon.queue_limit
        return max(1, int(limit * self.settings.tier(caller.tier).queue_share)) if caller.key_id else limit

    def _check_share(self, caller: Caller, images: int) -> None:
        tier, load = self.settings.tier(caller.tier), self.queue.load_of(caller.owner)
        if images > tier.images_in_flight:
            message = f"{images} images are more than this key may have at once: {tier.images_in_flight}"
            raise invalid("count", message, "ask for fewer at a time")
        share = self.share_of(caller)
        if load.queued + self._jobs[caller.owner] >= share:
            raise _full(f"this key's share of the queue is full ({share} jobs)")
        if load.images + self._images[caller.owner] + images > tier.images_in_flight:
            raise CraftError(
                "RATE_LIMITED",
                f"this key may have {tier.images_in_flight} images in flight; it has {load.images}",
                "wait until some are done",
                retry_after_s=RETRY_AFTER_S,
            )


def draining() -> CraftError:
    return CraftError("DRAINING", "the daemon is stopping", "try again in a moment", retry_after_s=RETRY_AFTER_S)


def _full(message: str) -> CraftError:
    return CraftError("QUEUE_FULL", message, "try again later", retry_after_s=RETRY_AFTER_S)
