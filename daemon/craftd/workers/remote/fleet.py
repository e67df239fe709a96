"""The workers on other machines, where the configuration lets any in. What nobody asked for is not imported."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from craft_protos.reasons import CraftError
from craft_protos.settings import Settings

from craftd.store.database import Database
from craftd.workers.pool import WorkerPool

if TYPE_CHECKING:
    from craftd.workers.remote.port import JoinLine, WorkerPort


class Fleet:
    """A face of the daemon, and what rules it."""

    def __init__(self, port: WorkerPort | None) -> None:
        """`port`: None where no worker from elsewhere is let in."""
        self._port = port

    @classmethod
    async def open(cls, settings: Settings, folder: Path, database: Database, pool: WorkerPool) -> Fleet:
        """Who has joined before has a place in the pool. Raises CONFIG_INVALID, OSError."""
        if not settings.worker.listen:
            return cls(None)
        from craftd.workers.remote.port import WorkerPort
        from craftd.workers.remote.roster import Roster

        port = WorkerPort(settings.worker, folder, Roster(database), pool, settings.daemon.keep_alive_s)
        await port.open()
        return cls(port)

    async def start(self) -> None:
        """Raises CONFIG_INVALID."""
        if self._port is not None:
            await self._port.start()

    async def run(self) -> None:
        """For ever."""
        if self._port is None:
            await asyncio.Event().wait()
        else:
            await self._port.run()

    async def stop(self, grace_s: float) -> None:
        if self._port is not None:
            await self._port.stop(grace_s)

    @property
    def address(self) -> str:
        """That workers connect to; "" where none are let in."""
        return "" if self._port is None else self._port.address

    async def invite(self, name: str) -> JoinLine:
        """Raises CONFIG_INVALID, INVALID_FIELD, NAME_TAKEN, RATE_LIMITED."""
        return await self._open_port.invite(name)

    async def remove(self, name: str) -> None:
        """Raises CONFIG_INVALID, UNKNOWN_WORKER."""
        await self._open_port.remove(name)

    @property
    def _open_port(self) -> WorkerPort:
        if self._port is None:
            hint = "`craft config set worker.listen HOST:PORT`, then `craft daemon restart`"
            raise CraftError("CONFIG_INVALID", "no worker on another machine is let in: worker.listen is not set", hint)
        return self._port
