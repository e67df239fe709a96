"""How a worker is reached, wherever it runs, and how others hear what it says."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from craft_protos.worker_pb2 import FromWorker, ToWorker

from craftd.workers.dispatches import ActiveDispatch

if TYPE_CHECKING:
    from craftd.workers.handle import WorkerHandle


@dataclass(frozen=True)
class Ending:
    """How a worker's process ended."""

    how: str  # in words
    is_own_doing: bool  # what it ran ended it, and nobody from outside
    is_cut_off: bool = False  # the line to its machine broke: the process may well live


@dataclass(frozen=True)
class Death:
    """A worker's end, as its listeners hear of it."""

    why: str
    is_planned: bool  # the daemon ended it, and meant to
    is_own_doing: bool = False  # evidence against what it ran: a crash, a bad frame, a stall, the kernel's OOM killer
    lost: tuple[ActiveDispatch, ...] = ()  # what it had been given and did not give back
    is_cut_off: bool = False  # the line to its machine broke, which says nothing of its jobs


class Connection(Protocol):
    """A running worker process, and the line to it."""

    @property
    def pid(self) -> int: ...

    def send(self, frame: ToWorker) -> None:
        """Hand a frame over; a worker that is gone ignores it (`receive` tells)."""
        ...

    async def receive(self) -> FromWorker | None:
        """The next frame; None when the worker has ended. The first is its hello. Raises BadFrame."""
        ...

    async def stage(self, files: Mapping[str, Path]) -> None:
        """Make files known by their hashes. Raises OSError."""
        ...

    async def collect(self, sha256: str, destination: Path) -> None:
        """Move a file that it made out of its store, also where it has ended since. Raises OSError."""
        ...

    async def discard(self, sha256: str) -> None:
        """Delete a file that it made and nobody wants. Raises OSError."""
        ...

    def kill(self) -> None:
        """End it at once, with everything that it started."""
        ...

    async def wait(self) -> Ending:
        """Wait for its end."""
        ...


Connect = Callable[[], Awaitable[Connection]]


class Elsewhere(Protocol):
    """The other machine that a worker is on."""

    @property
    def address(self) -> str:
        """Where it is connected from; "" while it is not."""
        ...


class Listener(Protocol):
    """Who is told what the workers of the pool say."""

    def on_ready(self, worker: WorkerHandle, hello: FromWorker.Hello) -> None: ...

    def on_frame(self, worker: WorkerHandle, frame: FromWorker) -> None: ...

    def on_death(self, worker: WorkerHandle, death: Death) -> None:
        """It ended, by our wish or not; a new one starts when it's wanted."""
        ...

    def on_start_failed(self, worker: WorkerHandle, why: str) -> None:
        """It could not be started, several times over; that is tried again while one is wanted."""
        ...
