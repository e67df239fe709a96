"""Whether a worker serves."""

from __future__ import annotations

from typing import Literal

from craft_protos.worker_pb2 import FromWorker

from craftd.workers.connection import Death
from craftd.workers.handle import WorkerHandle
from craftd.workers.pool import WorkerPool


class Readiness:
    """Listens to the workers. A worker that was ended because it was idle comes back by itself."""

    def __init__(self, pool: WorkerPool) -> None:
        self._pool = pool
        self._serves = pool.is_ready
        pool.listen(self)

    def look(self) -> Literal["ready", "starting"]:
        """Where no worker serves one is wanted from now on."""
        if not self._serves:
            self._pool.want()
        return "ready" if self._serves else "starting"

    def on_ready(self, worker: WorkerHandle, hello: FromWorker.Hello) -> None:
        self._serves = True

    def on_frame(self, worker: WorkerHandle, frame: FromWorker) -> None:
        """Nothing of it matters here."""

    def on_death(self, worker: WorkerHandle, death: Death) -> None:
        self._serves = self._pool.is_ready or (self._serves and death.is_planned)

    def on_start_failed(self, worker: WorkerHandle, why: str) -> None:
        self._serves = self._pool.is_ready
