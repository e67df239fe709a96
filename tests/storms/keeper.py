"""Keeps one daemon running: what starts it again when it has gone, and knows whether somebody ended it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import psutil

from tests.home import HANG_S, Home


@dataclass(frozen=True)
class Death:
    """A daemon's end that nobody wished for."""

    status: int
    last_words: str

    def __str__(self) -> str:
        return f"exit status {self.status}: {self.last_words[-300:]}"


@dataclass
class Keeper:
    """`deaths`: of its own accord. `is_up` is set while a daemon has said that it is ready."""

    home: Home
    env: Mapping[str, str] = field(default_factory=dict)
    deaths: list[Death] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)  # reasons of starts that failed
    starts: int = 0
    process: asyncio.subprocess.Process | None = None
    address: str = ""
    is_up: asyncio.Event = field(default_factory=asyncio.Event)
    is_restarting: bool = True  # a daemon that died by itself
    _reading: int = -1  # the ready pipe of a start that is under way
    _heard_of: int = 0  # so much of stderr is of earlier ones
    _wished: set[int] = field(default_factory=set)
    _watching: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def workers(self) -> list[psutil.Process]:
        """Its live ones, as the system knows them; not the processes that look at a stranger's file, one each."""
        with contextlib.suppress(psutil.Error):
            children = psutil.Process(self.pid).children()
            return [one for one in children if _is_worker(_command(one))]
        return []

    async def start(self) -> float:
        """Seconds from its start until it was ready; one that refuses at first is started again."""
        began = time.monotonic()
        async with asyncio.timeout(HANG_S):
            await self.spawn()
            while not await self.ready():
                await asyncio.sleep(0.05)
                await self.spawn()
        return time.monotonic() - began

    async def recover(self) -> None:
        """Bring one that starts to its end of that, and have one that was told to stop do so and be replaced."""
        if self._reading >= 0 and await self.ready():
            return
        assert self.process is not None
        if self.process.pid in self._wished or self.process.returncode is not None:
            await self.process.wait()
            if not self.is_up.is_set():
                await self.start()

    async def spawn(self) -> None:
        """A process, which is not ready yet."""
        self._forget_start()
        self._heard_of = len(self.last_words)
        self._reading, writing = os.pipe()
        with (self.home.root / "stderr.log").open("ab") as stderr:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "craftd", "--ready-fd", str(writing)),
                env={**self.home.env, **self.env},
                pass_fds=[writing],
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=stderr,
            )
        os.close(writing)
        self.starts += 1
        watching = asyncio.create_task(self._watch(self.process), name="watch craftd")
        self._watching.add(watching)
        watching.add_done_callback(self._watching.discard)

    async def ready(self) -> bool:
        """Wait for its word. False: it ended instead, and `refusals` has the reason."""
        reading, self._reading = self._reading, -1
        with os.fdopen(reading) as pipe:
            line = await asyncio.to_thread(pipe.readline)
        said = json.loads(line) if line else {}
        if not said.get("ready"):
            self.refusals.append(said.get("error", {}).get("reason", "silence"))
            assert self.process is not None
            await self.process.wait()
            return False
        self.address = str(said["address"])
        self.is_up.set()
        return True

    async def end(self, number: signal.Signals = signal.SIGKILL) -> int:
        """Its exit status. One that does not end on SIGTERM hangs, which is for the test's own limit to say."""
        assert self.process is not None
        self.wish(number)
        self.is_up.clear()
        return await self.process.wait()

    def wish(self, number: signal.Signals) -> None:
        """Send a signal that may end it."""
        assert self.process is not None
        self._wished.add(self.process.pid)
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    async def restart(self, number: signal.Signals = signal.SIGKILL) -> float:
        """Seconds until the next one was ready."""
        await self.end(number)
        return await self.start()

    async def close(self) -> None:
        """End it, however the storm went."""
        self.is_restarting = False
        if self.process is not None and self.process.returncode is None:
            self.wish(signal.SIGCONT)
            await self.end()
        self._forget_start()
        await asyncio.gather(*self._watching, return_exceptions=True)

    def _forget_start(self) -> None:
        if self._reading >= 0:
            os.close(self._reading)
            self._reading = -1

    def limit_descriptors(self, most: int) -> tuple[int, int]:
        """Of the running daemon; the limits before. None can be opened beyond, what is open stays so."""
        before = resource.prlimit(self.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(self.pid, resource.RLIMIT_NOFILE, (most, before[1]))
        return before

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        status = await process.wait()
        if process is not self.process:
            return
        was_up = self.is_up.is_set()
        self.is_up.clear()
        if process.pid in self._wished or not was_up:  # a start that failed is told by `refusals`
            return
        self.deaths.append(Death(status, self.last_words[self._heard_of :]))
        if self.is_restarting:
            await self.start()

    @property
    def last_words(self) -> str:
        path = self.home.root / "stderr.log"
        return path.read_text(errors="replace") if path.exists() else ""


def _is_worker(command: list[str]) -> bool:
    return any("worker" in word for word in command) and "--inspect" not in command


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
