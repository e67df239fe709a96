"""How late the event loop is: what every caller waits for in vain while something else holds it."""

from __future__ import annotations

import asyncio

from prometheus_client import Histogram

_EVERY_S = 0.05
_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 5)


class LoopLag:
    """Asks the loop for a call at a given time, again and again, and notes how much later each comes."""

    def __init__(self) -> None:
        self.histogram = Histogram(
            "craft_loop_lag_seconds",
            "How late the event loop calls what is due.",
            buckets=_BUCKETS_S,
            registry=None,
        )
        self._due: asyncio.TimerHandle | None = None

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._due = loop.call_later(_EVERY_S, self._note, loop)

    def stop(self) -> None:
        if self._due is not None:
            self._due.cancel()

    def _note(self, loop: asyncio.AbstractEventLoop) -> None:
        assert self._due is not None
        self.histogram.observe(max(0.0, loop.time() - self._due.when()))
        self.start()
