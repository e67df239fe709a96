"""The workers: who of them takes a job, and which models they hold together."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence

from craft_protos.reasons import CraftError

from craftd.models.model import Manifest, Model
from craftd.offload import Need
from craftd.tasks import serve_for_ever
from craftd.workers.connection import Listener
from craftd.workers.handle import WorkerHandle
from craftd.workers.speeds import Speeds

_LATE = 2.0  # times as long as starts take here


class WorkerPool:
    """Each worker lives and dies by itself. `changed` hears that `deadline` may be another now."""

    def __init__(self, workers: Sequence[WorkerHandle], speeds: Speeds | None = None) -> None:
        self.workers = tuple(workers)
        self.speeds = speeds or Speeds()
        self.changed: Callable[[], None] = lambda: None
        self._awaited: Counter[str] = Counter()
        self._listeners: list[Listener] = []
        self._serving: dict[WorkerHandle, asyncio.Task[None]] | None = None  # while `run` does
        for worker in self.workers:
            worker.residency.awaited = self._awaited
        self.listen(self.speeds)

    def listen(self, listener: Listener) -> None:
        """To what every worker says, those that come later too."""
        self._listeners.append(listener)
        for worker in self.workers:
            worker.listen(listener)

    def add(self, worker: WorkerHandle) -> None:
        """One more, after those that there are."""
        worker.residency.awaited = self._awaited
        for listener in self._listeners:
            worker.listen(listener)
        self.workers = (*self.workers, worker)
        self._serve(worker)
        self.changed()

    async def remove(self, worker: WorkerHandle, why: str) -> None:
        """Never given anything again; its jobs wait again."""
        self.workers = tuple(one for one in self.workers if one is not worker)
        await worker.end(why)
        if self._serving is not None and (task := self._serving.pop(worker, None)) is not None:
            task.cancel()
            await asyncio.wait([task])
        worker.residency.on_start_failed(worker, why)
        self.changed()

    async def run(self) -> None:
        """Serve for ever; cancelling it kills the workers."""
        self._serving = {}
        try:
            for worker in self.workers:
                self._serve(worker)
            await asyncio.Event().wait()
        finally:
            tasks, self._serving = list(self._serving.values()), None
            for task in tasks:
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.gather(*tasks, return_exceptions=True)

    def _serve(self, worker: WorkerHandle) -> None:
        if self._serving is not None:
            self._serving[worker] = asyncio.create_task(serve_for_ever("worker", worker.run), name="worker")

    async def end(self, why: str) -> None:
        """End all processes, and wait until their memory is back."""
        await asyncio.gather(*(worker.end(why) for worker in self.workers))

    def want(self) -> None:
        """Have one more started, if there is one, and none that is starting already, as far as that is waited for."""
        waiting = [worker for worker in self.workers if not worker.is_ready and worker.may_be_given]
        late = [worker for worker in waiting if math.isinf(self.starts_in_s(worker))]
        waiting = [worker for worker in waiting if worker not in late]
        if waiting and not any(worker.is_starting for worker in waiting):
            min(waiting, key=lambda worker: worker.failures).want()

    @property
    def is_ready(self) -> bool:
        """One of them has said hello and lives."""
        return any(worker.is_ready for worker in self.workers)

    @property
    def are_drawing(self) -> bool:
        return any(worker.dispatches.are_drawing for worker in self.workers)

    @property
    def trouble(self) -> str:
        """Why none can be started, while none can."""
        troubles = [worker.trouble for worker in self.workers if worker.is_reachable]
        return troubles[0] if troubles and all(troubles) else ""

    @property
    def start_s(self) -> float:
        """What a worker's start takes here."""
        return self.speeds.start_s

    def late_at(self, worker: WorkerHandle) -> float:
        """When a start that was wanted is late (monotonic): it may hang, and others are not kept waiting for it."""
        assert worker.wanted_at is not None, worker.name
        return worker.wanted_at + worker.wait_s + _LATE * self.start_s

    def starts_in_s(self, worker: WorkerHandle) -> float:
        """How long until it is ready, as starts go; infinite where it is late."""
        if worker.is_ready:
            return 0.0
        if worker.wanted_at is None:
            return self.start_s + worker.wait_s
        if (now := time.monotonic()) > self.late_at(worker):
            return math.inf
        return max(0.0, worker.wanted_at + worker.wait_s + self.start_s - now)

    def times_of(self, model: str) -> tuple[float, float]:
        """What a load of the model takes here, and a picture with it. Seconds."""
        return self.speeds.load_s(model), self.speeds.image_s(model)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is wrong with them together."""
        told = {worker.precision: worker.name for worker in self.workers if worker.precision}
        if len(told) < 2:
            return ()
        each = ", ".join(f"{precision} on {name}" for precision, name in told.items())
        return (
            f"workers compute differently ({each}), so a seed's picture depends on where it is drawn: "
            "set worker.precision",
        )

    @property
    def is_drained(self) -> bool:
        """Nothing is given to any of them."""
        return not any(worker.may_be_given for worker in self.workers)

    def drain(self, name: str) -> WorkerHandle:
        """Give a worker nothing more; its process ends when it has nothing to do. Raises UNKNOWN_WORKER."""
        worker = self._named(name)
        worker.is_drained = True
        self.changed()
        return worker

    def resume(self, name: str) -> WorkerHandle:
        """Undo `drain`. Raises UNKNOWN_WORKER."""
        worker = self._named(name)
        worker.is_drained = False
        self.changed()
        return worker

    def _named(self, name: str) -> WorkerHandle:
        for worker in self.workers:
            if worker.name == name:
                return worker
        known = ", ".join(worker.name for worker in self.workers)
        raise CraftError("UNKNOWN_WORKER", f"no worker is called {name[:64]!r}", f"there is {known}")

    @property
    def restarts(self) -> int:
        return sum(worker.restarts for worker in self.workers)

    @property
    def device(self) -> str:
        """Of the first that has said."""
        return next((worker.device for worker in self.workers if worker.device), "")

    @property
    def precision(self) -> str:
        """That the first who has said computes in."""
        return next((worker.precision for worker in self.workers if worker.precision), "")

    @property
    def device_bytes(self) -> int:
        """Memory of the first device that has said."""
        told = (worker.vitals.hello.device_bytes for worker in self.workers if worker.vitals is not None)
        return next((count for count in told if count), 0)

    # Models

    def expect(self, models: Sequence[str]) -> None:
        """A job that waits for a worker needs them: whoever has them keeps them."""
        self._awaited.update(models)

    def assign(self, models: Sequence[str], workers: Sequence[WorkerHandle]) -> None:
        """Workers have got that job."""
        self._forget(models)
        for worker, model in itertools.product(workers, models):
            worker.residency.acquire(model)

    def take_back(self, models: Sequence[str], workers: Sequence[WorkerHandle]) -> None:
        """It waits again."""
        self.expect(models)
        self.release(models, workers)

    def release(self, models: Sequence[str], workers: Sequence[WorkerHandle]) -> None:
        """It has ended: in workers, or while it waited for some."""
        if not workers:
            self._forget(models)
        for worker, model in itertools.product(workers, models):
            worker.residency.release(model)
        self.changed()

    def _forget(self, models: Sequence[str]) -> None:
        self._awaited.subtract(models)
        for model in models:
            if not self._awaited[model]:
                del self._awaited[model]

    def is_needed(self, model: str) -> bool:
        """By a job that is not finished, or by somebody who loads it."""
        return any(worker.residency.is_needed(model) for worker in self.workers)

    def holds(self, manifest: Manifest) -> bool:
        """One has it in memory, from just these files."""
        return any(worker.residency.holds(manifest) for worker in self.workers)

    def loaded_on(self, model: str) -> tuple[str, ...]:
        """The workers in whose memory it is."""
        return tuple(worker.name for worker in self.workers if worker.residency.is_loaded(model))

    def evicted_by(self, model: Model, beside: Sequence[Model] = ()) -> tuple[str, ...]:
        """The models that would be unloaded to make room for it and the control models beside it."""
        return self._best_for(model.name).residency.evicted_by(model, beside)

    def need_of(self, model: Model, beside: Sequence[Model] = ()) -> Need | None:
        """What it and those beside it will hold of a device's memory; None while that is not known."""
        return self._best_for(model.name).residency.need_of(model, beside)

    async def load(self, manifest: Manifest, keep_alive_s: float | None) -> None:
        """Into one's memory. `keep_alive_s`: None as configured, 0 not at all, negative for ever.

        Raises the worker's error, and CANCELLED where `unload` came before it was there.
        """
        try:
            await self._best_for(manifest.name).residency.load(manifest, keep_alive_s)
        finally:
            self.changed()

    async def unload(self, model: str) -> None:
        """Until its memory is given back; jobs that need it are finished first, a load that waits is given up."""
        await asyncio.gather(*(worker.residency.unload(model) for worker in self.workers))

    @property
    def deadline(self) -> float | None:
        """When `tend` has something to do next (monotonic seconds); None: not before something changes."""
        times = (worker.residency.deadline for worker in self.workers)
        return min((at for at in times if at is not None), default=None)

    async def tend(self) -> None:
        """Unload what has been idle too long; end workers that hold nothing."""
        for worker in self.workers:
            await worker.residency.tend()
            if worker.is_drained and worker.is_ready and not worker.dispatches:
                await worker.end("drained")

    def _best_for(self, model: str) -> WorkerHandle:
        """Who has it, else who lives and has least to do."""
        return min(
            self.workers,
            key=lambda one: (
                not one.may_be_given,
                not one.residency.is_loaded(model),
                not one.is_ready,
                one.dispatches.rows,
            ),
        )
