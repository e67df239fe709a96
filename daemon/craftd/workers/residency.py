"""Which models a worker holds, for whom, and how long after their last use."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from craft_protos import rungs
from craft_protos.dispatch import Load, ModelManifest, Unload
from craft_protos.reasons import REASONS, CraftError
from craft_protos.worker_pb2 import FromWorker

from craftd import eviction, offload
from craftd.models import folder
from craftd.models.model import Manifest, Model
from craftd.offload import Need
from craftd.workers.connection import Death

if TYPE_CHECKING:
    from craftd.workers.handle import Vitals, WorkerHandle

_log = logging.getLogger("craft.models")


@dataclass
class _Resident:
    sha256: str
    resident_bytes: int
    last_used: float  # monotonic
    is_leaving: bool = False


class Residency:
    """Listens to its worker. `acquire` and `release` bracket every job that it has been given.

    `awaited`: models of the jobs that wait for a worker, of which this one may be it; the pool counts them.
    """

    def __init__(self, worker: WorkerHandle, keep_alive_s: float) -> None:
        self.awaited: Counter[str] = Counter()
        self._worker = worker
        self._keep_alive_s = keep_alive_s
        self._keep_alives: dict[str, float] = {}  # asked for by LoadModel or UnloadModel
        self._users: Counter[str] = Counter()
        self._residents: dict[str, _Resident] = {}
        self._loads: dict[str, list[asyncio.Future[None]]] = {}
        self._bringing: dict[str, set[asyncio.Task[None]]] = {}  # who waits in `load`
        self._unloads: dict[str, list[asyncio.Future[None]]] = {}
        self._withdrawn: set[str] = set()  # loading, and unloaded as soon as the worker can
        self._ready: list[asyncio.Future[None]] = []
        self._expected: dict[str, str] = {}  # manifests' sha256 that the worker was told to use
        self._staged: tuple[Manifest, Vitals | None] | None = None  # what which worker was given last
        self._is_unwanted = False  # the last model was unloaded: the process may go
        self._last_used = time.monotonic()

    def acquire(self, name: str) -> None:
        """A job that it was given needs it, or somebody who loads it."""
        self._users[name] += 1

    def release(self, name: str) -> None:
        """Undo one acquire."""
        self._users[name] -= 1
        self._users += Counter()  # drops zeros
        self._touch(name)

    def is_needed(self, name: str) -> bool:
        """By a job that is not finished, or by somebody who loads it."""
        return self._users[name] > 0 or self.awaited[name] > 0

    @property
    def last_used(self) -> float:
        """When anything of it was used last (monotonic)."""
        return self._last_used

    def would_evict(self, need_bytes: int) -> bool:
        """Another model would have to go for one of that size; False while no worker has told of its memory."""
        vitals = self._worker.vitals
        if vitals is None or not vitals.hello.device_bytes:
            return False
        held = sum(one.resident_bytes for one in self._residents.values())
        return bool(held) and held + need_bytes > eviction.budget_bytes(vitals.hello.device_bytes)

    def is_loaded(self, name: str) -> bool:
        return name in self._residents

    def holds(self, manifest: Manifest) -> bool:
        """Loaded, from just these files."""
        resident = self._residents.get(manifest.name)
        return resident is not None and resident.sha256 == manifest.sha256

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(sorted(self._residents))

    def evicted_by(self, model: Model, beside: Sequence[Model] = ()) -> tuple[str, ...]:
        """What would be unloaded to make room for it and for those beside it, which are the control models of a job.

        () too while no worker has told of its memory.
        """
        vitals = self._worker.vitals
        lacking = [one for one in beside if not self.is_loaded(one.name)]
        if vitals is None or not vitals.hello.device_bytes or (self.is_loaded(model.name) and not lacking):
            return ()
        stays = {model.name, *(one.name for one in beside)}
        residents = [
            eviction.Resident((name, one.sha256), one.resident_bytes, one.last_used, is_idle=not self.is_needed(name))
            for name, one in self._residents.items()
            if name not in stays
        ]
        own = None if self.is_loaded(model.name) else self._own_need(model)
        need_bytes = self._held_beside(lacking, vitals) + (0 if own is None else own.peak_bytes)
        need_bytes += sum(one.resident_bytes for name, one in self._residents.items() if name in stays)
        return eviction.foretell(residents, need_bytes, eviction.budget_bytes(vitals.hello.device_bytes))

    def need_of(self, model: Model, beside: Sequence[Model] = ()) -> Need | None:
        """What it and those beside it hold of the device's memory; None while no worker has told of its memory."""
        own, vitals = self._own_need(model), self._worker.vitals
        if own is None or vitals is None:
            return None
        return replace(own, peak_bytes=own.peak_bytes + self._held_beside(beside, vitals))

    @staticmethod
    def _held_beside(models: Sequence[Model], vitals: Vitals) -> int:
        return sum(one.weights.resident_bytes(vitals.hello.precision, "") for one in models)

    def _own_need(self, model: Model) -> Need | None:
        vitals = self._worker.vitals
        if vitals is None or not vitals.hello.device_bytes:
            return None
        total = vitals.hello.device_bytes
        if not vitals.hello.device.startswith("cuda"):
            whole = model.weights.resident_bytes(vitals.hello.precision, model.memory_precision)
            return Need(rungs.NONE, whole, total)
        sizes = offload.sizes_of(folder.blocks_of(model.files), vitals.hello.precision, model.memory_precision)
        denoiser, asked = offload.denoiser_of(sizes), self._worker.offload
        chosen = offload.choose(sizes, denoiser, eviction.budget_bytes(total)) if asked == rungs.AUTO else asked
        return Need(chosen, offload.peak(chosen, sizes, denoiser), total)

    async def stage(self, manifest: Manifest) -> None:
        """Give the worker the model's files. Raises DISK_FULL, STORAGE_FAILED."""
        process = self._worker.vitals
        if self._staged is not None and self._staged[0] is manifest and self._staged[1] is process:
            return
        pairs = zip(manifest.files, manifest.sources, strict=True)
        await self._worker.stage({file.sha256: source for file, source in pairs})
        self._staged = (manifest, process)

    def expect(self, manifest: ModelManifest) -> None:
        """The worker was told to use it: loaded or not yet, its files are these."""
        self._expected[manifest.name] = manifest.sha256

    async def load(self, manifest: Manifest, keep_alive_s: float | None) -> None:
        """Until it is in memory. `keep_alive_s`: None as configured, 0 not at all, negative for ever.

        Raises the worker's error, and CANCELLED where `unload` came before it was there.
        """
        task = asyncio.create_task(self._bring(manifest, keep_alive_s), name=f"load {manifest.name}")
        others = self._bringing.setdefault(manifest.name, set())
        others.add(task)
        try:
            await asyncio.wait([task])
        finally:
            others.discard(task)
            task.cancel()
        if task.cancelled():
            raise CraftError("CANCELLED", f"model {manifest.name} was unloaded before it was loaded", "load it again")
        task.result()

    async def unload(self, name: str) -> None:
        """Until its memory is given back; jobs that need it are finished first, a load that waits is given up."""
        bringing = self._bringing.get(name, set()).copy()
        for task in bringing:
            task.cancel()
        if bringing:
            await asyncio.wait(bringing)
        if not self._is_around(name):
            return
        self._keep_alives[name] = 0.0
        gone = self._when_unloaded(name)
        await self.tend()
        await gone

    @property
    def deadline(self) -> float | None:
        """When `tend` has something to do next (monotonic seconds); None: not before something changes."""
        times = [self._leaves_at(name) for name, one in self._residents.items() if self._may_leave(name, one)]
        if self._is_useless:
            times.append(self._ends_at)
        return min((at for at in times if at is not None), default=None)

    async def tend(self) -> None:
        """Unload what has been idle too long; end a worker that holds nothing."""
        now = time.monotonic()
        for name, resident in self._residents.items():
            leaves_at = self._leaves_at(name)
            if self._may_leave(name, resident) and leaves_at is not None and leaves_at <= now:
                resident.is_leaving = True
                self._worker.send(Unload(name))
        for name in (self._unloads.keys() & self._loads.keys()) - self._withdrawn:
            if not self.is_needed(name):
                self._withdrawn.add(name)
                self._worker.send(Unload(name))
        if self._is_useless and self._ends_at is not None and self._ends_at <= now:
            await self._worker.end("idle")
        for name in list(self._unloads):
            if not self._is_around(name):
                self._keep_alives.pop(name, None)
                _settle(self._unloads.pop(name))

    def on_ready(self, worker: WorkerHandle, hello: FromWorker.Hello) -> None:
        self._last_used, self._is_unwanted = time.monotonic(), False
        _settle(self._ready)

    def on_frame(self, worker: WorkerHandle, frame: FromWorker) -> None:
        match frame.WhichOneof("frame"):
            case "loaded":
                self._on_loaded(frame.loaded.model, frame.loaded.resident_bytes)
            case "load_failed":
                error = frame.load_failed.error
                self._withdrawn.discard(frame.load_failed.model)
                _settle(
                    self._loads.pop(frame.load_failed.model, []), _error_of(error.reason, error.message, error.hint)
                )
            case "unloaded":
                self._on_unloaded(frame.unloaded.model, frame.unloaded.why)

    def on_death(self, worker: WorkerHandle, death: Death) -> None:
        self._residents.clear()
        self._withdrawn.clear()
        self._fail_waiting(CraftError("JOB_FAILED", f"the worker ended while it loaded: {death.why}", "try again"))
        for name in list(self._unloads):
            _settle(self._unloads.pop(name))

    def on_start_failed(self, worker: WorkerHandle, why: str) -> None:
        self._fail_waiting(
            CraftError("JOB_FAILED", f"the worker could not be started: {why}", "see `craft daemon logs`")
        )

    def _on_loaded(self, name: str, resident_bytes: int) -> None:
        self._is_unwanted = False
        is_leaving = name in self._withdrawn
        self._residents[name] = _Resident(self._expected.get(name, ""), resident_bytes, time.monotonic(), is_leaving)
        _settle(self._loads.pop(name, []))

    def _on_unloaded(self, name: str, why: str) -> None:
        self._residents.pop(name, None)
        self._withdrawn.discard(name)
        self._keep_alives.pop(name, None)
        _log.info("model unloaded", extra={"model": name, "why": why})
        if self._residents or self._users or self.awaited:
            _settle(self._unloads.pop(name, []))
        else:  # the end of the process gives back what libraries keep; `tend` wakes who waits
            self._is_unwanted = True

    async def _bring(self, manifest: Manifest, keep_alive_s: float | None) -> None:
        self.acquire(manifest.name)
        try:
            await self._until_ready()
            while self._is_leaving(manifest.name):
                await self._when_unloaded(manifest.name)
                await self._until_ready()
            self._remember_keep_alive(manifest.name, keep_alive_s)
            if not self.holds(manifest):
                await self._load(manifest)
        finally:
            self.release(manifest.name)

    def _when_unloaded(self, name: str) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._unloads.setdefault(name, []).append(future)
        return future

    def _is_around(self, name: str) -> bool:
        """In the worker's memory, on its way there, or wanted there."""
        return name in self._residents or name in self._loads or self.is_needed(name)

    def _is_leaving(self, name: str) -> bool:
        """The worker was told to unload it, and has not answered."""
        return name in self._withdrawn or (name in self._residents and self._residents[name].is_leaving)

    async def _until_ready(self) -> None:
        if not self._worker.is_ready:
            future = asyncio.get_running_loop().create_future()
            self._ready.append(future)
            self._worker.want()
            await future

    async def _load(self, manifest: Manifest) -> None:
        await self.stage(manifest)
        load = Load(manifest)
        future = asyncio.get_running_loop().create_future()
        self._loads.setdefault(manifest.name, []).append(future)
        self.expect(manifest)
        self._worker.send(load)
        await future

    def _remember_keep_alive(self, name: str, keep_alive_s: float | None) -> None:
        if keep_alive_s is None:
            self._keep_alives.pop(name, None)
        else:
            self._keep_alives[name] = keep_alive_s

    def _touch(self, name: str) -> None:
        self._last_used = time.monotonic()
        if name in self._residents:
            self._residents[name].last_used = self._last_used

    def _may_leave(self, name: str, resident: _Resident) -> bool:
        return not self.is_needed(name) and not resident.is_leaving

    def _leaves_at(self, name: str) -> float | None:
        keep_alive_s = self._keep_alives.get(name, self._keep_alive_s)
        return None if keep_alive_s < 0 else self._residents[name].last_used + keep_alive_s

    @property
    def _ends_at(self) -> float | None:
        if self._is_unwanted:
            return self._last_used
        return None if self._keep_alive_s < 0 else self._last_used + self._keep_alive_s

    @property
    def _is_useless(self) -> bool:
        return self._worker.is_ready and not (self._residents or self._users or self.awaited)

    def _fail_waiting(self, error: CraftError) -> None:
        _settle(self._ready, error)
        for name in list(self._loads):
            _settle(self._loads.pop(name), error)


def _settle(futures: list[asyncio.Future[None]], error: CraftError | None = None) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None) if error is None else future.set_exception(error)
    futures.clear()


def _error_of(reason: str, message: str, hint: str) -> CraftError:
    return CraftError(reason if reason in REASONS else "JOB_FAILED", message, hint)
