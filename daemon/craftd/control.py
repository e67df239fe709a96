"""The daemon as a whole: what it does now, and its end."""

from __future__ import annotations

import asyncio
import os
import resource
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from craft_protos.version import __version__

from craftd.bot_process import BotProcess, BotStatus
from craftd.scheduler.scheduler import Scheduler
from craftd.workers.handle import Vitals, WorkerHandle
from craftd.workers.pool import WorkerPool
from craftd.workers.remote.fleet import Fleet

if TYPE_CHECKING:
    from craftd.workers.remote.port import JoinLine


@dataclass(frozen=True)
class WorkerStatus:
    name: str
    pid: int  # 0: it has no process
    device: str
    state: str  # STARTING, LOADING, BUSY, IDLE
    models: tuple[str, ...]
    rss_bytes: int
    device_bytes: int
    restarts: int
    predict_calls: int
    rows: int = 0  # images that it still has to draw
    capacity_rows: int = 0  # that it draws at once
    is_drained: bool = False
    is_remote: bool = False  # on another machine
    elsewhere: str = ""  # where that is connected from


@dataclass(frozen=True)
class DaemonStatus:
    pid: int
    version: str
    address: str
    start_time: float
    workers: tuple[WorkerStatus, ...]
    queued: int
    running: int
    draining: bool
    rss_bytes: int
    warnings: tuple[str, ...]
    listen: str = ""  # the TCP address
    worker_listen: str = ""  # where workers on other machines connect to
    http: str = ""  # its URL
    faults: tuple[str, ...] = ()  # of the surroundings, that jobs wait out; among the warnings too
    mended: int = 0  # jobs that were found out of step with the store
    bot: BotStatus | None = None  # of the Telegram bot; none: off


@dataclass
class Stop:
    """A wish for the end. Setting it is all that signals and calls do; serve.py acts."""

    grace_s: float
    wanted: asyncio.Event = field(default_factory=asyncio.Event)
    now: asyncio.Event = field(default_factory=asyncio.Event)
    _is_signalled: bool = False

    def request(self, grace_s: float | None = None) -> None:
        """Drain; None: as configured. Whoever asked first has said how long that may take."""
        if grace_s is not None and not self.wanted.is_set():
            self.grace_s = grace_s
        self.wanted.set()

    def hurry(self) -> None:
        """End what runs at once."""
        self.now.set()
        self.wanted.set()

    def on_signal(self) -> None:
        """The first drains, the second hurries."""
        if self._is_signalled:
            self.hurry()
        self._is_signalled = True
        self.request()


class Control:
    def __init__(
        self,
        address: str,
        pool: WorkerPool,
        scheduler: Scheduler,
        stop: Stop,
        *,
        fleet: Fleet,
        bot: BotProcess | None = None,
    ) -> None:
        self._address = address
        self._pool = pool
        self._scheduler = scheduler
        self._stop = stop
        self._bot = bot
        self._fleet = fleet
        self._start_time = time.time()
        self._warnings: list[str] = []
        self._listen = ""
        self._http = ""

    def warn(self, warning: str) -> None:
        """Have the status say it, as long as this daemon runs; "" is no warning."""
        self._warnings += [warning] if warning else []

    def note_listening(self, address: str) -> None:
        """At TCP, beside the socket."""
        self._listen = address

    def note_http(self, url: str) -> None:
        self._http = url

    def status(self) -> DaemonStatus:
        jobs = self._scheduler.jobs
        workers = self._pool.workers
        alive = [one.vitals for one in workers if one.vitals is not None]
        return DaemonStatus(
            pid=os.getpid(),
            version=__version__,
            address=self._address,
            start_time=self._start_time,
            workers=tuple(_status(one) for one in workers if one.vitals or one.is_drained or len(workers) > 1),
            queued=jobs.queued,
            running=jobs.running,
            draining=jobs.is_draining,
            rss_bytes=own_rss_bytes(),
            warnings=(
                *self._warnings,
                *self._scheduler.warnings,
                *(warning for vitals in alive for warning in vitals.hello.warnings),
                *self._pool.warnings,
            ),
            listen=self._listen,
            worker_listen=self._fleet.address,
            http=self._http,
            faults=self._scheduler.faults,
            mended=self._scheduler.mended,
            bot=self._bot.status if self._bot is not None else None,
        )

    def drain_worker(self, name: str, *, resume: bool) -> WorkerStatus:
        """Give a worker nothing more, or again. Raises UNKNOWN_WORKER."""
        return _status(self._pool.resume(name) if resume else self._pool.drain(name))

    async def invite_worker(self, name: str) -> JoinLine:
        """Let one on another machine join. Raises CONFIG_INVALID, INVALID_FIELD, NAME_TAKEN, RATE_LIMITED."""
        return await self._fleet.invite(name)

    async def remove_worker(self, name: str) -> None:
        """One on another machine, at once. Raises CONFIG_INVALID, UNKNOWN_WORKER."""
        await self._fleet.remove(name)

    def shutdown(self, *, now: bool, grace_s: float) -> None:
        """Begin to stop. `grace_s` 0: as configured."""
        if now:
            self._stop.hurry()
        else:
            self._stop.request(grace_s or None)


def _status(worker: WorkerHandle) -> WorkerStatus:
    vitals = worker.vitals or Vitals(0)
    return WorkerStatus(
        name=worker.name,
        pid=vitals.pid,
        device=vitals.hello.device,
        state=worker.state,
        models=worker.residency.names,
        rss_bytes=vitals.stats.rss_bytes,
        device_bytes=vitals.stats.device_bytes,
        restarts=worker.restarts,
        predict_calls=vitals.stats.predict_calls,
        rows=worker.dispatches.rows,
        capacity_rows=vitals.hello.capacity_rows,
        is_drained=worker.is_drained,
        is_remote=worker.elsewhere is not None,
        elsewhere=worker.elsewhere.address if worker.elsewhere is not None else "",
    )


def own_rss_bytes() -> int:
    """Resident memory of this process; the most it ever had where the system doesn't tell the present."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * resource.getpagesize()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
