"""Tasks that fail alone: the boundaries that keep one part's fault from ending the daemon.

A TaskGroup ends everything that it holds with the first error; that is right where the parts
need each other, and wrong for a daemon whose other jobs go on (docs/decisions/0014).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

_log = logging.getLogger("craft.daemon")
_SHORTEST_WAIT_S = 0.05
_LONGEST_WAIT_S = 5.0

T = TypeVar("T")


class Tasks:
    """An owner of tasks: it holds them until they end, logs the error of one that fails, and ends all together."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._on_done)
        return task

    async def cancel(self) -> None:
        """End all, and wait until they have ended."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _on_done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (exc := task.exception()) is not None:
            _log.error("a task failed", exc_info=exc, extra={"task": task.get_name()})


async def serve_for_ever(name: str, run: Callable[[], Awaitable[None]]) -> None:
    """Run a part of the daemon; one that fails is logged and run again, after a wait that grows."""
    wait_s = _SHORTEST_WAIT_S
    while True:
        try:
            await run()
            return
        except Exception:  # a boundary: a part's bug, or a fault around it, is no reason to end the others
            _log.exception("a part of the daemon failed", extra={"part": name, "again_in_s": wait_s})
        await asyncio.sleep(wait_s)
        wait_s = min(_LONGEST_WAIT_S, 2 * wait_s)
