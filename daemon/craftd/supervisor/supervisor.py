"""Keeps at most one worker: starts it at the first need, replaces it when it hangs, ends it when idle."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from craft_protos.config import WorkerSettings
from craft_protos.reasons import CraftError
from craft_protos.worker_pb2 import FromWorker, ToWorker

from craftd.supervisor.interface import Listener, StartWorker, Worker
from craftd.supervisor.progress import Progress

_log = logging.getLogger("craft.supervisor")
_MOST_STARTS = 3
_BACKOFF_S = 0.25


@dataclass
class Vitals:
    """What the worker said of itself."""

    pid: int
    hello: FromWorker.Hello = field(default_factory=FromWorker.Hello)
    stats: FromWorker.Stats = field(default_factory=FromWorker.Stats)


class Supervisor:
    """The owner of the worker's process. Everything runs on the event loop."""

    def __init__(self, start: StartWorker, settings: WorkerSettings, backoff_s: float = _BACKOFF_S) -> None:
        self._start = start
        self._settings = settings
        self._backoff_s = backoff_s
        self._listeners: list[Listener] = []
        self._wanted = asyncio.Event()
        self._worker: Worker | None = None
        self._is_ready = False
        self._why = ""  # we ended it
        self._is_planned = False  # and meant to
        self._progress = Progress(settings, time.monotonic())
        self._watch_again = asyncio.Event()
        self._idle = asyncio.Event()  # set while no process exists
        self._idle.set()
        self.restarts = 0
        self.vitals: Vitals | None = None

    def listen(self, listener: Listener) -> None:
        self._listeners.append(listener)

    @property
    def is_ready(self) -> bool:
        """A worker has said hello and lives."""
        return self._is_ready

    @property
    def is_alive(self) -> bool:
        return self._worker is not None

    @property
    def is_loading(self) -> bool:
        return self._progress.is_loading

    @property
    def is_busy(self) -> bool:
        return self._progress.is_busy

    def want(self) -> None:
        """Have a worker started, if there is none; listeners hear of it."""
        self._wanted.set()

    def send(self, frame: ToWorker) -> None:
        """Give it something to do; without a worker, nothing happens."""
        if self._worker is not None and self._is_ready:
            self._worker.send(frame)
            self._progress.gave(frame, time.monotonic())
            self._watch_again.set()

    def put_file(self, sha256: str, source: Path) -> None:
        if self._worker is not None:
            self._worker.put_file(sha256, source)

    def take_file(self, sha256: str, destination: Path) -> None:
        """Move a file that the worker made to `destination`. Raises OSError."""
        if self._worker is None:
            raise FileNotFoundError(2, "the worker is gone", sha256)
        self._worker.take_file(sha256, destination)

    async def end(self, why: str) -> None:
        """End the process and wait until its memory is back."""
        if self._worker is not None:
            self._why, self._is_planned = why, True
            self._worker.kill()
            await self._idle.wait()

    async def run(self) -> None:
        """Serve for ever; cancelling it kills the worker."""
        while True:
            await self._wanted.wait()
            await self._live()

    async def _live(self) -> None:
        """From the wish for a worker to its end; a few starts that fail are tried again."""
        why = ""
        for attempt in range(_MOST_STARTS):
            await asyncio.sleep(self._backoff_s * attempt)
            was_ready, why = await self._live_once()
            if was_ready or self._is_planned:
                self._tell_death(why)
                return
            _log.error("worker did not start", extra={"why": why, "attempt": attempt + 1})
        self._wanted.clear()
        self._tell(lambda listener: listener.on_start_failed(why))

    async def _live_once(self) -> tuple[bool, str]:
        """One process's life: (whether it said hello, how it ended)."""
        try:
            worker = await self._start()
        except OSError as exc:
            return False, str(exc)
        self._worker, self._why, self._is_planned = worker, "", False
        self._idle.clear()
        self.vitals = Vitals(worker.pid)
        self._progress = Progress(self._settings, time.monotonic())
        try:
            watching = asyncio.create_task(self._watch(worker), name="watch worker")
            try:
                await self._converse(worker)
            finally:
                watching.cancel()
        finally:
            worker.kill()
        how = await worker.wait()
        return self._bury(how)

    def _bury(self, how: str) -> tuple[bool, str]:
        was_ready, why = self._is_ready, self._why or how
        self._worker, self._is_ready, self.vitals = None, False, None
        self._idle.set()
        self.restarts += was_ready and not self._is_planned
        _log.info("worker ended", extra={"why": why, "planned": self._is_planned})
        return was_ready, why

    async def _converse(self, worker: Worker) -> None:
        while (frame := await worker.receive()) is not None:
            self._progress.saw(frame, time.monotonic())
            self._watch_again.set()
            assert self.vitals is not None
            match frame.WhichOneof("frame"):
                case "hello":
                    self._greet(frame.hello)
                case "stats":
                    self.vitals.stats.CopyFrom(frame.stats)
                case _:
                    for listener in self._listeners:
                        listener.on_frame(frame)

    def _greet(self, hello: FromWorker.Hello) -> None:
        assert self.vitals is not None
        self.vitals.hello.CopyFrom(hello)
        self._is_ready = True
        _log.info("worker ready", extra={"pid": self.vitals.pid, "device": hello.device, "rows": hello.capacity_rows})
        self._tell(lambda listener: listener.on_ready(hello))

    async def _watch(self, worker: Worker) -> None:
        """Kill it when it makes no progress for longer than what it does allows."""
        while True:
            self._watch_again.clear()
            deadline = self._progress.deadline
            if deadline is not None and time.monotonic() >= deadline:
                self._why = f"no progress within {self._progress.limit_s:g} s"
                _log.error("worker hangs", extra={"pid": worker.pid, "limit_s": self._progress.limit_s})
                worker.kill()
                return
            try:
                wait_s = None if deadline is None else deadline - time.monotonic()
                async with asyncio.timeout(wait_s):
                    await self._watch_again.wait()
            except TimeoutError:
                continue

    def _tell_death(self, why: str) -> None:
        self._wanted.clear()
        self._tell(lambda listener: listener.on_death(why, is_planned=self._is_planned))

    def _tell(self, what: Callable[[Listener], None]) -> None:
        for listener in self._listeners:
            what(listener)


def cannot_start(why: str) -> CraftError:
    """What a caller hears whose worker did not start."""
    return CraftError("JOB_FAILED", f"the worker could not be started: {why}", "see `craft daemon logs`")
