"""Faults of the surroundings are waited out: jobs stay queued, and fail only for what is their own fault.

A full disk, a folder that is gone for a moment, no descriptors left: whatever failed is tried
again, after waits that grow. Each fault has a subject (`DISK`, a model, a job), and nothing is
begun that needs a subject at fault.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from craft_protos.reasons import CraftError

DISK = "disk"
_FIRST_WAIT_S = 0.1
_LONGEST_WAIT_S = 5.0
_STORAGE = ("DISK_FULL", "STORAGE_FAILED")

T = TypeVar("T")


def is_of_surroundings(exc: BaseException) -> bool:
    """Whether the system refused, so that the same thing may well go later; a limit of our own is no refusal."""
    if isinstance(exc, CraftError):
        return exc.reason in _STORAGE or (exc.__cause__ is not None and is_of_surroundings(exc.__cause__))
    return isinstance(exc, OSError) and not isinstance(exc, TimeoutError)


@dataclass
class _Pause:
    why: str
    tries: int
    until: float  # monotonic: then the next try is due


class Pauses:
    """What is at fault now. `changed` is called when that changes."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._pauses: dict[str, _Pause] = {}
        self._trying: Counter[str] = Counter()  # who goes on trying, by subject
        self.changed: Callable[[], None] = lambda: None

    def begin(self, subject: str, why: str) -> float:
        """The subject failed; how many seconds to wait before the next try, which is the same for all who wait."""
        known, now = self._pauses.get(subject), self._clock()
        if known is not None and now < known.until:  # another has just seen the same
            return known.until - now
        tries = 0 if known is None else known.tries + 1
        wait_s = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2.0 ** min(tries, 16))
        self._pauses[subject] = _Pause(why, tries, now + wait_s)
        self.changed()
        return wait_s

    def end(self, subject: str) -> None:
        """It works again."""
        if self._pauses.pop(subject, None) is not None:
            self.changed()

    def is_on(self, subject: str, now: float | None = None) -> bool:
        """Nothing that needs it should be begun: it is at fault, and its next try is not due or is being made."""
        pause = self._pauses.get(subject)
        if pause is None:
            return False
        return self._trying[subject] > 0 or pause.until > (self._clock() if now is None else now)

    def why(self, subject: str) -> str:
        """What is wrong with it; "" for nothing."""
        pause = self._pauses.get(subject)
        return "" if pause is None else pause.why

    @property
    def warnings(self) -> tuple[str, ...]:
        return tuple(f"{pause.why}: jobs wait, and it is tried again" for pause in self._pauses.values())

    def deadline(self, now: float) -> float | None:
        """When a subject that `is_on` held back at `now` may be tried again, where nobody tries by himself (monotonic).

        By the same clock reading: else a pause that ends between the two is one that nobody wakes up for.
        """
        times = [one.until for subject, one in self._pauses.items() if not self._trying[subject] and one.until > now]
        return min(times, default=None)

    async def outlast(self, subject: str, work: Callable[[], Awaitable[T]]) -> T:
        """Do it, as often as it takes until the surroundings let it succeed. Raises its other errors."""
        is_trying = False
        try:
            while True:
                try:
                    result = await work()
                except Exception as exc:
                    if not is_of_surroundings(exc):
                        raise
                    self._trying[subject] += not is_trying
                    is_trying = True
                    await asyncio.sleep(self.begin(subject, str(exc)))
                else:
                    self.end(subject)
                    return result
        finally:
            if is_trying:
                self._trying[subject] -= 1
                if not self._trying[subject]:  # who tried has given up: the next to come will see
                    self.end(subject)
