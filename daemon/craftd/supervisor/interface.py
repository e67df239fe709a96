"""The one small interface through which a worker is reached, wherever it runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

from craft_protos.worker_pb2 import FromWorker, ToWorker


class Worker(Protocol):
    """A running worker process."""

    @property
    def pid(self) -> int: ...

    def send(self, frame: ToWorker) -> None:
        """Hand a frame over; a worker that is gone ignores it (`receive` tells)."""
        ...

    async def receive(self) -> FromWorker | None:
        """The next frame; None when the worker has ended. The first is its hello."""
        ...

    def put_file(self, sha256: str, source: Path) -> None:
        """Make a file known by its hash."""
        ...

    def take_file(self, sha256: str, destination: Path) -> None:
        """Move a file that it made out of its store; it may have ended since. Raises OSError."""
        ...

    def kill(self) -> None:
        """End it at once, with everything that it started."""
        ...

    async def wait(self) -> str:
        """Wait for its end; how it ended, in words."""
        ...


StartWorker = Callable[[], Awaitable[Worker]]


class Listener(Protocol):
    """Who is told what the worker says."""

    def on_ready(self, hello: FromWorker.Hello) -> None: ...

    def on_frame(self, frame: FromWorker) -> None: ...

    def on_death(self, why: str, *, is_planned: bool) -> None:
        """It ended, by our wish or not; a new one starts when it's wanted."""
        ...

    def on_start_failed(self, why: str) -> None:
        """It could not be started, several times over."""
        ...
