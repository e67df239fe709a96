"""What takes a while to find out is asked for once at a time, and believed for a moment."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")

GOOD_S = 0.25  # hundreds of jobs a second share one look at a model's folder; a person sees no delay


class Fresh(Generic[T]):
    """Answers by name. Errors are told to who asked, and not kept."""

    def __init__(
        self, read: Callable[[str], Awaitable[T]], good_s: float = GOOD_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._read = read
        self._good_s = good_s
        self._clock = clock
        self._known: dict[str, tuple[float, T]] = {}
        self._asking: dict[str, asyncio.Task[T]] = {}

    def peek(self, name: str) -> T | None:
        """What is known and still good."""
        known = self._known.get(name)
        return None if known is None or known[0] + self._good_s < self._clock() else known[1]

    async def get(self, name: str) -> T:
        """Raises what reading raises."""
        known = self.peek(name)
        if known is not None:
            return known
        if name not in self._asking:
            task = self._asking[name] = asyncio.create_task(self._ask(name), name=f"read {name}")
            task.add_done_callback(lambda _: self._asking.pop(name, None) and None)
        return await asyncio.shield(self._asking[name])

    def forget(self) -> None:
        """Something has changed."""
        self._known.clear()
        self._asking.clear()  # who asked already gets an answer; who asks from now on asks anew

    async def _ask(self, name: str) -> T:
        asked_at = self._clock()
        answer = await self._read(name)
        if asyncio.current_task() is self._asking.get(name):
            self._known[name] = (asked_at, answer)
        return answer
