"""Has a daemon's calls on files fail, be held up or be cut short, and its wall clock jump: see shim.c."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("shim.c")
WRITING = "wfrcmt"  # every call by which something gets onto a disk
ALL = WRITING + "olu"


@functools.cache
def built() -> Path:
    """The library, made by cc once in a process; it goes with its folder when that ends."""
    if shutil.which("cc") is None:
        pytest.skip("there is no C compiler, and so no disk that fails to order: apt-get install gcc libc6-dev")
    library = Path(_folder().name) / "shim.so"
    command = ["cc", "-shared", "-fPIC", "-O1", "-Wall", "-o", str(library), str(SOURCE), "-ldl", "-lpthread"]
    subprocess.run(command, check=True)
    return library


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="craft-shim-")


@dataclass(frozen=True)
class Order:
    """Which calls are hit: those of `operations` on paths below the data folder that hold `match`.

    The letters: w write, f sync, r rename, c open for writing, o open, l list a folder, m make a
    folder or a link, u unlink, t truncate. The first `skip` of them pass, the next `count` are hit (-1: all).
    """

    operations: str = WRITING
    match: str = "/data/"
    error: int = errno.EIO
    mode: str = "f"  # f: fails; p: a write takes only half; s: takes `error` ms; h: waits until the order is withdrawn
    skip: int = 0
    count: int = -1
    share: float = 1.0  # of those calls, by chance
    seed: int = 1

    def __str__(self) -> str:
        name = {
            "f": errno.errorcode.get(self.error, str(self.error)),
            "p": "short",
            "s": f"{self.error} ms",
            "h": "held",
        }[self.mode]
        return f"{name} {self.operations} {self.match} after {self.skip}"

    def line(self, number: int) -> str:
        millionths = round(self.share * 1_000_000)
        words = (number, self.mode, self.error, self.operations, self.skip, self.count, millionths, self.seed)
        return " ".join(str(word) for word in (*words, self.match))


@dataclass
class Shim:
    """The orders for one home's daemon. `env` is what the daemon is started with."""

    root: Path
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _hits: asyncio.Queue[str] = field(default_factory=asyncio.Queue)
    _fifo: int = -1

    @property
    def env(self) -> dict[str, str]:
        return {
            "LD_PRELOAD": str(built()),
            "SHIM_FOLDER": str(self.root),
            "SHIM_ORDER": str(self._order),
            "SHIM_CLOCK": str(self._clock),
            "SHIM_HITS": str(self._fifo_path),
        }

    def open(self) -> None:
        """Begin to hear of hits."""
        self._folder.mkdir(exist_ok=True)
        os.mkfifo(self._fifo_path)
        self._fifo = os.open(self._fifo_path, os.O_RDWR | os.O_NONBLOCK)
        asyncio.get_running_loop().add_reader(self._fifo, self._hear)

    def close(self) -> None:
        self.release()
        asyncio.get_running_loop().remove_reader(self._fifo)
        os.close(self._fifo)

    def order(self, order: Order) -> None:
        """From now on, in place of any order before; calls that were held go on, or are hit by this one."""
        with contextlib.suppress(asyncio.QueueEmpty):
            while True:
                self._hits.get_nowait()
        temporary = self._order.with_suffix(".tmp")
        temporary.write_text(order.line(next(self._numbers)))
        temporary.replace(self._order)

    def release(self) -> None:
        """Nothing is hit any more, and what was held goes on."""
        self._order.unlink(missing_ok=True)

    def set_clock(self, ahead_s: float) -> None:
        """The daemon's wall clock; its monotonic one never jumps."""
        temporary = self._clock.with_suffix(".tmp")
        temporary.write_text(str(ahead_s))
        temporary.replace(self._clock)

    async def hit(self, count: int = 1, timeout_s: float = 10.0) -> int:
        """Wait until so many calls were hit since the order; how many were, where that takes too long."""
        done = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while done < count:
                    await self._hits.get()
                    done += 1
        return done

    def _hear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            for line in os.read(self._fifo, 65536).decode(errors="replace").splitlines():
                self._hits.put_nowait(line)

    @property
    def _folder(self) -> Path:
        return self.root / "shim"

    @property
    def _order(self) -> Path:
        return self._folder / "order"

    @property
    def _clock(self) -> Path:
        return self._folder / "clock"

    @property
    def _fifo_path(self) -> Path:
        return self._folder / "hits"
