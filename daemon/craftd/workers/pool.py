"""The workers: who of them takes a job, and which models they hold together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from craftd.models.model import Manifest, Model
from craftd.offload import Need
from craftd.tasks import serve_for_ever
from craftd.workers.connection import Listener
from craftd.workers.handle import WorkerHandle


class WorkerPool:
    """Each worker lives and dies by itself. `changed` hears that `deadline` may be another now."""

    def __init__(self, workers: Sequence[WorkerHandle]) -> None:
        self.workers = tuple(workers)
        self.changed: Callable[[], None] = lambda: None

    def listen(self, listener: Listener) -> None:
        """To what every worker says."""
        for worker in self.workers:
            worker.listen(listener)

    async def run(self) -> None:
        """Serve for ever; cancelling it kills the workers."""
        await asyncio.gather(*(serve_for_ever("worker", worker.run) for worker in self.workers))

    async def end(self, why: str) -> None:
        """End all processes, and wait until their memory is back."""
        await asyncio.gather(*(worker.end(why) for worker in self.workers))

    def want(self) -> None:
        """Have one more started, if there is one, and none that is starting already."""
        waiting = [worker for worker in self.workers if not worker.is_ready]
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
        troubles = [worker.trouble for worker in self.workers]
        return troubles[0] if all(troubles) else ""

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

    def acquire(self, model: str) -> None:
        """A job needs it, now or soon."""
        for worker in self.workers:
            worker.residency.acquire(model)

    def release(self, model: str) -> None:
        """Undo one acquire."""
        for worker in self.workers:
            worker.residency.release(model)
        self.changed()

    def is_needed(self, model: str) -> bool:
        """By a job that is not finished, or by somebody who loads it."""
        return any(worker.residency.is_needed(model) for worker in self.workers)

    def holds(self, manifest: Manifest) -> bool:
        """One has it in memory, from just these files."""
        return any(worker.residency.holds(manifest) for worker in self.workers)

    def loaded_on(self, model: str) -> tuple[str, ...]:
        """The devices whose memory it is in."""
        return tuple(worker.device for worker in self.workers if worker.residency.is_loaded(model))

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

    def _best_for(self, model: str) -> WorkerHandle:
        """Who has it, else who lives and has least to do."""
        return min(
            self.workers, key=lambda one: (not one.residency.is_loaded(model), not one.is_ready, one.dispatches.rows)
        )
