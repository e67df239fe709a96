"""Where everything that happens outside the engine's thread waits for it."""

from __future__ import annotations

import math
import queue
import time
from collections.abc import Callable, Iterator

COALESCE_S = 0.003  # jobs sent together arrive this close to each other


class Inbox:
    """Frames from the front, finished loads, finished pictures: in order of arrival."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._mail: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._clock = clock
        self._first_at = -math.inf  # when the last wait was over

    def post(self, mail: object) -> None:
        """Put one in; from any thread."""
        self._mail.put(mail)

    def waiting(self) -> Iterator[object]:
        """What is there now, without waiting."""
        while True:
            try:
                yield self._mail.get_nowait()
            except queue.Empty:
                return

    def wait(self, timeout_s: float | None) -> Iterator[object]:
        """Wait for the first, then take what is there with it."""
        try:
            yield self._mail.get(timeout=timeout_s)
        except queue.Empty:
            return
        self._first_at = self._clock()
        yield from self.waiting()

    def following(self) -> Iterator[object]:
        """Yields what is there, and what arrives within a few milliseconds of the first message that was waited for.

        Jobs sent together so start together; what was done since that first one came is no time lost.
        """
        while (left_s := self._first_at + COALESCE_S - self._clock()) > 0:
            try:
                yield self._mail.get(timeout=left_s)
            except queue.Empty:
                break
        yield from self.waiting()
