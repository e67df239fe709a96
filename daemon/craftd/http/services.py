"""What the HTTP face is built upon: the same services that gRPC calls."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from craft_protos.reasons import CraftError
from craft_protos.settings import Settings

from craftd.control import Control
from craftd.http.drawing import Drawing
from craftd.images.service import ImageService
from craftd.inputs.service import InputService
from craftd.jobs.service import JobService
from craftd.keys.service import KeyService
from craftd.loras.service import LoraService
from craftd.models.service import ModelService
from craftd.workers.pool import WorkerPool

if TYPE_CHECKING:
    from craftd.http.eventstream import EventStreams
    from craftd.http.lag import LoopLag
    from craftd.http.mcp.sessions import Sessions


@dataclass(frozen=True)
class HttpServices:
    jobs: JobService
    images: ImageService
    models: ModelService
    loras: LoraService
    keys: KeyService
    control: Control
    pool: WorkerPool
    settings: Settings
    inputs: InputService

    @cached_property
    def drawing(self) -> Drawing:
        """One for all routers: it knows who waits."""
        return Drawing(self.jobs)

    @cached_property
    def streams(self) -> EventStreams:
        """One for all routers: it counts what is open."""
        from craftd.http.eventstream import EventStreams

        return EventStreams(self)

    @cached_property
    def lag(self) -> LoopLag:
        """One for the server, which starts and stops it, and for the metrics."""
        from craftd.http.lag import LoopLag

        return LoopLag()

    @cached_property
    def agents(self) -> Sessions:
        """Of agents that speak the Model Context Protocol. Raises CONFIG_INVALID where its package is missing."""
        try:
            from craftd.http.mcp.sessions import Sessions
        except ImportError as exc:
            raise CraftError(
                "CONFIG_INVALID",
                f"http.mcp: the package mcp, 2.3 or later, is not installed ({exc})",
                "install craft with the extra mcp, as craft[daemon,mcp], or set http.mcp to false",
            ) from exc
        return Sessions(self)
