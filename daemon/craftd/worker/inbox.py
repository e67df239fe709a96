"""Where everything that happens outside the engine's thread waits for it."""

from __future__ import annotations

import queue
from collections.abc import Iterator

COALESCE_S = 0.003  # jobs sent together arrive this close to each other


class Inbox:
    """Frames from the front, finished loads, finished pictures: in order of arrival."""

    def __init__(self) -> None:
        self._mail: queue.SimpleQueue[object] = queue.SimpleQueue()

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
        """Wait for the first, then take what follows on its heels, so that jobs sent together start together."""
        try:
            yield self._mail.get(timeout=timeout_s)
            while True:
                yield self._mail.get(timeout=COALESCE_S)
        except queue.Empty:
            return
