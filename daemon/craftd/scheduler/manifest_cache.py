"""Models' manifests for the scheduler, which must not stand still while gigabytes are hashed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from craftd.models.model import Manifest
from craftd.tasks import Tasks

_AT_ONCE_S = 0.1  # what is known is there by then


class ManifestCache:
    """One task for each model that is asked for; `ready` is called when a late one is there."""

    def __init__(self, read: Callable[[str], Awaitable[Manifest]], tasks: Tasks, ready: Callable[[], None]) -> None:
        self._read = read
        self._tasks = tasks
        self._ready = ready
        self._asked: dict[str, asyncio.Task[Manifest | Exception]] = {}

    def is_late(self, name: str) -> bool:
        """It was asked for and is being hashed."""
        return name in self._asked and not self._asked[name].done()

    async def get(self, name: str) -> Manifest | None:
        """None if it takes longer; then ask again after `ready`. Raises what the reading raised."""
        if name not in self._asked:
            self._asked[name] = self._tasks.start(self._outcome(name), f"manifest of {name}")
        task = self._asked[name]
        await asyncio.wait({task}, timeout=_AT_ONCE_S)
        if not task.done():
            task.add_done_callback(lambda _: self._ready())
            return None
        del self._asked[name]
        outcome = task.result()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def _outcome(self, name: str) -> Manifest | Exception:
        """An error is an outcome too: it belongs to who asked."""
        try:
            return await self._read(name)
        except Exception as exc:
            return exc
