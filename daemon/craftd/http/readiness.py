"""Whether a worker serves."""

from __future__ import annotations

from typing import Literal

from craft_protos.worker_pb2 import FromWorker

from craftd.supervisor.supervisor import Supervisor


class Readiness:
    """Listens to the supervisor. A worker that was ended because it was idle comes back by itself."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._serves = supervisor.is_ready
        supervisor.listen(self)

    def look(self) -> Literal["ready", "starting"]:
        """Where no worker serves one is wanted from now on."""
        if not self._serves:
            self._supervisor.want()
        return "ready" if self._serves else "starting"

    def on_ready(self, hello: FromWorker.Hello) -> None:
        self._serves = True

    def on_frame(self, frame: FromWorker) -> None:
        """Nothing of it matters here."""

    def on_death(self, why: str, *, is_planned: bool) -> None:
        self._serves = self._serves and is_planned

    def on_start_failed(self, why: str) -> None:
        self._serves = False
