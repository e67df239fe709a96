"""A front with a worker port, and workers that come to it over TLS: all in one process, but for what draws."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from craft_protos.remote_pb2 import FromRemote, Greeting, ToRemote
from craft_protos.settings import WorkerSettings
from craft_protos.version import __version__
from craftd.joining.agent import Agent
from craftd.joining.host import Host
from craftd.joining.identity import Identity, connect
from craftd.workers.handle import WorkerHandle
from craftd.workers.local import LocalConnection
from craftd.workers.remote import line as lines
from craftd.workers.remote.certificates import serial_of
from craftd.workers.remote.line import Line
from craftd.workers.remote.port import JoinLine, WorkerPort
from craftd.workers.remote.roster import Roster
from craftd.workers.speeds import Speeds

from tests.daemon.test_pool import FAKE, Scene, playing

PORT = replace(FAKE, listen="127.0.0.1:0", line_timeout_s=20.0)


class NoStarts(Speeds):
    """Everybody is asked to help: a start costs nothing."""

    start_s = 0.0


class Fleet:
    """A scheduler over one worker of this machine and those that join."""

    def __init__(self, folder: Path, scene: Scene, settings: WorkerSettings = PORT) -> None:
        self.folder = folder
        self.scene = scene
        self.pool = scene.pool
        self.roster = Roster(scene.database)
        self.port = WorkerPort(settings, folder / "fleet", self.roster, scene.pool, 300.0)
        self._agents: list[asyncio.Task[None]] = []

    async def joined(self, name: str = "box-2") -> Remote:
        """A worker on another machine, as it were, that runs."""
        remote = await self.invited(name)
        self.run(remote)
        return remote

    async def invited(self, name: str = "box-2") -> Remote:
        """The same, which has its certificate, and does not run."""
        remote = Remote(self.folder / name, await self.port.invite(name))
        await remote.identity.join(remote.told.address, remote.told.fingerprint, remote.told.invitation.token)
        return remote

    def run(self, remote: Remote) -> asyncio.Task[None]:
        """Connect, and stay so."""
        remote.running = asyncio.create_task(remote.agent().run())
        self._agents.append(remote.running)
        return remote.running

    def worker(self, name: str = "box-2") -> WorkerHandle:
        (found,) = [one for one in self.pool.workers if one.name == name]
        return found

    async def greeted(self, identity: Identity) -> Line[ToRemote]:
        """A line of an end that then says whatever it likes, with the front's first wish for a process."""
        line = await connect(self.port.address, identity.context())
        line.send(FromRemote(greeting=Greeting(version=__version__, frames=lines.VERSION)))
        await next_of(line, "greeting")
        self.worker().want()
        return line

    async def end(self) -> None:
        for task in self._agents:
            task.cancel()
        await asyncio.gather(*self._agents, return_exceptions=True)
        await self.port.stop(1.0)


class Remote:
    """Its folder, and what runs over that."""

    def __init__(self, folder: Path, told: JoinLine) -> None:
        self.told = told
        self.identity = Identity(folder)
        self.host: Host | None = None
        self.running: asyncio.Task[None] | None = None

    @property
    def serial(self) -> str:
        """Of its certificate."""
        return serial_of(self.identity._certificate)

    def agent(self, budget_bytes: int = 1 << 30, away_s: float = 300.0) -> Agent:
        self.host = Host(self.identity.folder, budget_bytes, partial(LocalConnection.start, FAKE))
        return Agent(self.told.address, self.identity, self.host, away_s)


async def next_of(line: Line[ToRemote], kind: str) -> ToRemote:
    """The next frame of a kind."""
    while (frame := await line.receive()) is not None:
        if frame.WhichOneof("frame") == kind:
            return frame
    raise AssertionError(f"{kind} did not come: {line.closed}")


@contextlib.asynccontextmanager
async def fleet(folder: Path, settings: WorkerSettings = PORT) -> AsyncIterator[Fleet]:
    async with playing(Scene(folder, NoStarts(), 1)) as scene:
        made = Fleet(folder, scene, settings)
        await made.port.open()
        await made.port.start()
        try:
            yield made
        finally:
            await made.end()
