"""One worker of the pool: started when it is wanted, ended when it hangs or is idle, started anew when wanted again.

Nothing that a worker does ends its handle: an error on its connection, a frame that is none, a
frame that a listener cannot handle are that worker's death. One that dies again and again without
progress, or cannot be started, is started again after longer and longer waits.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from craft_protos.dispatch import Cancel, Dispatch, Load, Preview, Unload
from craft_protos.frames import BadFrame, to_worker
from craft_protos.generate import GenerateSpec
from craft_protos.settings import WorkerSettings
from craft_protos.version import __version__
from craft_protos.worker_pb2 import FromWorker

from craftd.models.model import Manifest
from craftd.store.disk import unwritable
from craftd.workers.connection import Connect, Connection, Death, Elsewhere, Ending, Listener
from craftd.workers.dispatches import ActiveDispatch, Dispatches, WarmLoras
from craftd.workers.progress import Progress
from craftd.workers.residency import Residency

_log = logging.getLogger("craft.supervisor")
_TOLD_STARTS = 3  # that fail one after the other, before who waits hears of it
_FREE_FAILURES = 3
_BACKOFF_S = 0.25
_LONGEST_BACKOFF_S = 30.0
_ADVANCES = {"step", "image", "done", "training", "checkpoint"}  # frames of a worker that gets on


@dataclass
class Vitals:
    """What the worker said of itself."""

    pid: int
    hello: FromWorker.Hello = field(default_factory=FromWorker.Hello)
    stats: FromWorker.Stats = field(default_factory=FromWorker.Stats)


class WorkerHandle:
    """Owns a worker's process, what it was given, and what it holds. Everything runs on the event loop."""

    def __init__(
        self,
        connect: Connect,
        settings: WorkerSettings,
        keep_alive_s: float = 300.0,
        backoff_s: float = _BACKOFF_S,
        *,
        name: str = "",
        elsewhere: Elsewhere | None = None,
    ) -> None:
        """`name`: what it is called among several. `elsewhere`: the machine that it is on; None: this one."""
        self._name = name
        self.elsewhere = elsewhere
        self._connect = connect
        self._settings = settings
        self._backoff_s = backoff_s
        self._wanted = asyncio.Event()
        self._connection: Connection | None = None
        self._is_ready = False
        self._known_device = ""  # that it last had
        self._why = ""  # we ended it
        self._is_planned = False  # and meant to
        self._is_own_doing = False  # though by our hand: it hung, or sent no frames
        self._progress = Progress(settings, time.monotonic())
        self._watch_again = asyncio.Event()
        self._idle = asyncio.Event()  # set while no process exists
        self._idle.set()
        self.failures = 0  # starts that failed and deaths without progress, one after the other
        self.restarts = 0
        self.wanted_at: float | None = None  # since when a process is wanted that has not said hello (monotonic)
        self.busy_since = 0.0  # when it was last given something to do that had nothing (monotonic)
        self.is_drained = False  # nothing more is given to it; its process ends when it has nothing to do
        self.trouble = ""  # why it cannot be started, while it cannot
        self.vitals: Vitals | None = None
        self.dispatches = Dispatches()
        self.residency = Residency(self, keep_alive_s)
        self.loras = WarmLoras()
        self._listeners: list[Listener] = [self.residency]

    def listen(self, listener: Listener) -> None:
        self._listeners.append(listener)

    @property
    def is_ready(self) -> bool:
        """A worker has said hello and lives."""
        return self._is_ready

    @property
    def is_starting(self) -> bool:
        """One is wanted, and has not said hello."""
        return self._wanted.is_set() and not self._is_ready

    @property
    def capacity_rows(self) -> int:
        """Images that it draws at once."""
        return 1 if self.vitals is None else max(1, self.vitals.hello.capacity_rows)

    @property
    def name(self) -> str:
        """What users call it: where there is one, its device."""
        return self._name or self.device or self._known_device or self._settings.device

    @property
    def device(self) -> str:
        return "" if self.vitals is None else self.vitals.hello.device

    @property
    def precision(self) -> str:
        """That it computes in; "" while it has not said."""
        return "" if self.vitals is None else self.vitals.hello.precision

    @property
    def state(self) -> str:
        """STARTING, LOADING, BUSY, IDLE, or OFF without a process, AWAY where its machine is not connected."""
        if not self.is_reachable:
            return "AWAY"
        if not self._is_ready:
            return "OFF" if self.vitals is None else "STARTING"
        if self._progress.is_loading:
            return "LOADING"
        return "BUSY" if self._progress.is_busy else "IDLE"

    def has_room(self, *, is_suspect: bool, is_training: bool) -> bool:
        """For another job."""
        return (
            self.may_be_given
            and self._is_ready
            and self.dispatches.have_room(self.capacity_rows, is_suspect=is_suspect, is_training=is_training)
        )

    @property
    def may_be_given(self) -> bool:
        """Work at all: nobody drains it, and its machine is connected."""
        return not self.is_drained and self.is_reachable

    @property
    def is_reachable(self) -> bool:
        """It is on this machine, or on one that is connected."""
        return self.elsewhere is None or bool(self.elsewhere.address)

    def note_reachable(self) -> None:
        """Its machine is connected again: what failed before says nothing of now."""
        self.failures, self.trouble = 0, ""

    def want(self) -> None:
        """Have its process started, if there is none; listeners hear of it."""
        if not (self._wanted.is_set() or self._is_ready):
            self.wanted_at = time.monotonic()
        self._wanted.set()

    async def stage(self, files: Mapping[str, Path]) -> None:
        """Give it files, by their sha256. Raises DISK_FULL, STORAGE_FAILED."""
        if self._connection is None:
            return
        try:
            await self._connection.stage(files)
        except OSError as exc:
            raise unwritable(Path("files"), "the worker's link to a file", exc) from exc

    @property
    def offload(self) -> str:
        """As it is configured."""
        return self._settings.offload

    def submit(self, active: ActiveDispatch, dispatch: Dispatch, manifest: Manifest) -> None:
        """Hand a job over, whose files are staged; what it makes comes in frames."""
        if not self.dispatches:
            self.busy_since = time.monotonic()
        self.dispatches.add(active)
        if isinstance(dispatch.spec, GenerateSpec):
            self.loras.use(lora.sha256 for lora in dispatch.spec.loras)
        for one in (manifest, *dispatch.controls, *dispatch.later_models):
            self.residency.expect(one)
        self.send(dispatch)

    async def collect(self, sha256: str, destination: Path) -> None:
        """Move a file that it made to `destination`. Raises OSError."""
        if self._connection is None:
            raise FileNotFoundError(2, "the worker is gone", sha256)
        await self._connection.collect(sha256, destination)

    async def discard(self, sha256: str) -> None:
        """Delete a file that it made and nobody wants. Raises OSError."""
        if self._connection is not None:
            await self._connection.discard(sha256)

    def cancel(self, job_id: str, epoch: int) -> None:
        """Have it stop; it says when it has, or was done."""
        if self.dispatches.find(job_id, epoch) is not None:
            self.send(Cancel(job_id, epoch))

    def show_previews(self, dispatch: ActiveDispatch, every: int) -> None:
        """Every so many steps; 0: none."""
        if not dispatch.is_training and dispatch.preview_every != every:
            dispatch.preview_every = every
            self.send(Preview(dispatch.job_id, every))

    def send(self, asked: Dispatch | Cancel | Load | Unload | Preview) -> None:
        """Tell it something; without a process, nothing happens."""
        if self._connection is not None and self._is_ready:
            frame = to_worker(asked)
            self._connection.send(frame)
            self._progress.gave(frame, time.monotonic())
            self._watch_again.set()

    async def end(self, why: str) -> None:
        """End the process and wait until its memory is back."""
        if self._connection is not None:
            self._why, self._is_planned = why, True
            self._connection.kill()
            await self._idle.wait()

    async def run(self) -> None:
        """Serve for ever; cancelling it kills the worker."""
        while True:
            await self._wanted.wait()
            await self._live()

    async def _live(self) -> None:
        """From the wish for a process to its end, or to a start that failed."""
        await asyncio.sleep(self.wait_s)
        was_ready, death = await self._live_once()
        self._wanted.clear()
        self.wanted_at = None
        if was_ready or death.is_planned:
            self._tell(lambda listener: listener.on_death(self, death))
        else:
            self._note_failed_start(death.why)

    @property
    def wait_s(self) -> float:
        """Before the next start: none after the first failures, then twice as long each time."""
        if self.failures <= _FREE_FAILURES:
            return 0.0
        return min(_LONGEST_BACKOFF_S, self._backoff_s * 2.0 ** min(self.failures - _FREE_FAILURES - 1, 16))

    def _note_failed_start(self, why: str) -> None:
        self.failures += 1
        _log.error("worker did not start", extra={"why": why, "attempt": self.failures})
        if self.failures < _TOLD_STARTS:
            self._wanted.set()
            return
        self.trouble = why
        self._tell(lambda listener: listener.on_start_failed(self, why))

    async def _live_once(self) -> tuple[bool, Death]:
        """One process's life: (whether it said hello, how it ended)."""
        self._why, self._is_planned, self._is_own_doing = "", False, False
        try:
            connection = await self._connect()
        except OSError as exc:
            return False, Death(str(exc), is_planned=False)
        self._connection = connection
        self._idle.clear()
        self.vitals = Vitals(connection.pid)
        self._progress = Progress(self._settings, time.monotonic())
        try:
            watching = asyncio.create_task(self._watch(connection), name="watch worker")
            try:
                await self._converse(connection)
            finally:
                watching.cancel()
        finally:
            connection.kill()
        ending = await connection.wait()
        return self._bury(ending)

    def _bury(self, ending: Ending) -> tuple[bool, Death]:
        was_ready, is_ours = self._is_ready, bool(self._why)
        is_own_doing = self._is_own_doing if is_ours else ending.is_own_doing
        lost, is_cut_off = self.dispatches.remove_all(), ending.is_cut_off and not is_ours
        death = Death(self._why or ending.how, self._is_planned, is_own_doing, lost, is_cut_off)
        self._connection, self._is_ready, self.vitals = None, False, None
        self.loras.forget()
        self._idle.set()
        if was_ready and not (death.is_planned or death.is_cut_off):
            self.restarts += 1
            self.failures += 1
        _log.info("worker ended", extra={"why": death.why, "planned": death.is_planned})
        return was_ready, death

    async def _converse(self, connection: Connection) -> None:
        """Until it ends, or sends what nobody can handle."""
        try:
            while (frame := await connection.receive()) is not None:
                self._handle(frame)
        except BadFrame as exc:
            self._condemn(connection, f"it sent {exc}")
        except Exception as exc:  # the outermost frame of a connection: what a worker sends ends nobody but it
            _log.exception("a worker's frame could not be handled", extra={"pid": connection.pid})
            self._condemn(connection, f"it sent a frame that could not be handled ({exc!r})")

    def _handle(self, frame: FromWorker) -> None:
        assert self.vitals is not None
        self._progress.saw(frame, time.monotonic())
        self._watch_again.set()
        kind = frame.WhichOneof("frame")
        if kind == "hello":
            self._greet(frame.hello)
        elif not self._is_ready:
            raise BadFrame(f"{kind or 'nothing'} before its hello")
        elif kind == "stats":
            self.vitals.stats.CopyFrom(frame.stats)
        else:
            if kind in _ADVANCES:
                self.failures = 0
            for listener in self._listeners:
                listener.on_frame(self, frame)

    def _greet(self, hello: FromWorker.Hello) -> None:
        """Ready to serve, if it is of this craft: one that was upgraded meanwhile may speak differently."""
        assert self.vitals is not None
        if self._is_ready:
            raise BadFrame("a second hello")
        if hello.version != __version__:
            theirs = hello.version or "another version"
            raise BadFrame(f"the hello of craft {theirs}, and this daemon is {__version__}: `craft daemon restart`")
        self.vitals.hello.CopyFrom(hello)
        self._known_device = hello.device
        self.vitals.pid = self.vitals.pid or hello.pid
        self._is_ready, self.trouble = True, ""
        _log.info("worker ready", extra={"pid": self.vitals.pid, "device": hello.device, "rows": hello.capacity_rows})
        self._tell(lambda listener: listener.on_ready(self, hello))

    def _condemn(self, connection: Connection, why: str) -> None:
        """It did this itself, though it is the daemon that ends it."""
        self._why, self._is_own_doing = why, True
        _log.error("worker condemned", extra={"pid": connection.pid, "why": why})
        connection.kill()

    async def _watch(self, connection: Connection) -> None:
        """Kill it when it makes no progress for longer than what it does allows."""
        while True:
            self._watch_again.clear()
            deadline = self._progress.deadline
            if deadline is not None and time.monotonic() >= deadline:
                self._condemn(connection, f"no progress within {self._progress.limit_s:g} s")
                return
            try:
                wait_s = None if deadline is None else deadline - time.monotonic()
                async with asyncio.timeout(wait_s):
                    await self._watch_again.wait()
            except TimeoutError:
                continue

    def _tell(self, what: Callable[[Listener], None]) -> None:
        """Each hears it, whatever another makes of it."""
        for listener in self._listeners:
            try:
                what(listener)
            except Exception:  # a boundary: one listener's bug keeps nothing from the others
                _log.exception("a listener failed")
