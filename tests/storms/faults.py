"""What goes wrong, from outside: each happens to a scene, and is over when it returns."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
from collections.abc import Awaitable, Callable

import psutil

from tests.storms.scene import Scene
from tests.storms.shim import ALL, WRITING, Order

Fault = Callable[[Scene], Awaitable[None]]

_A_MOMENT_S = 0.4  # how long trouble lasts that nobody hears the end of


async def kill_daemon(scene: Scene) -> None:
    await scene.keeper.end(signal.SIGKILL)
    scene.shim.release()
    await scene.keeper.start()


async def terminate_daemon(scene: Scene) -> None:
    """SIGTERM twice: in a hurry."""
    scene.home.release()
    scene.shim.release()
    scene.keeper.wish(signal.SIGTERM)
    await scene.keeper.restart(signal.SIGTERM)


async def stop_daemon(scene: Scene) -> None:
    """SIGSTOP, as a laptop's lid or a debugger does."""
    os.kill(scene.keeper.pid, signal.SIGSTOP)
    await asyncio.sleep(_A_MOMENT_S)
    os.kill(scene.keeper.pid, signal.SIGCONT)


async def kill_worker(scene: Scene) -> None:
    """And callers go on creating jobs while it dies: frames are being written to it."""
    for worker in scene.keeper.workers:
        with contextlib.suppress(psutil.Error):
            worker.kill()
    for _ in range(3):
        scene.begin(scene.ask())


async def stop_worker(scene: Scene) -> None:
    """It is alive, and answers nothing for a moment."""
    for worker in scene.keeper.workers:
        with contextlib.suppress(psutil.Error):
            worker.suspend()
            await asyncio.sleep(_A_MOMENT_S)
            worker.resume()


async def worker_refuses(scene: Scene) -> None:
    """It dies, and no other can be started for a while."""
    scene.refuse()
    for worker in scene.keeper.workers:
        with contextlib.suppress(psutil.Error):
            worker.kill()
    scene.begin(scene.ask())
    await scene.logged("worker did not start", timeout_s=5)
    await asyncio.sleep(_A_MOMENT_S)
    scene.refuse(is_refusing=False)


def failing(operations: str, error: int, match: str = "/data/", *, seconds: float = _A_MOMENT_S) -> Fault:
    """Calls on files fail for a while, and callers go on; then the disk is sound again."""

    async def fail(scene: Scene) -> None:
        scene.shim.order(Order(operations, match, error, seed=scene.chance.randrange(1 << 30)))
        scene.home.release()  # so that something is written
        for _ in range(4):
            scene.begin(scene.ask(count=2))
        await asyncio.sleep(seconds)
        scene.shim.release()

    return fail


async def no_descriptors(scene: Scene) -> None:
    """The daemon can open nothing more, for a while."""
    before = scene.keeper.limit_descriptors(8)
    scene.home.release()
    for _ in range(4):
        scene.begin(scene.ask(count=2))
    await asyncio.sleep(_A_MOMENT_S)
    with contextlib.suppress(ProcessLookupError):
        scene.keeper.limit_descriptors(before[0])


def clock_jumps(seconds: float) -> Fault:
    """The wall clock is set, as a machine does that wakes up or first hears of the time."""

    async def jump(scene: Scene) -> None:
        scene.shim.set_clock(seconds)
        scene.shim.release()  # what was held goes on at another time than it began
        scene.begin(scene.ask())
        scene.home.release()
        with contextlib.suppress(TimeoutError):  # a daemon that only starts is heard of later
            async with asyncio.timeout(2 * _A_MOMENT_S):
                await scene.heard(4)
        scene.shim.set_clock(0)

    return jump


async def models_gone(scene: Scene) -> None:
    """The models' disk is away for a while."""
    with scene.models_gone():
        scene.home.release()
        await asyncio.sleep(_A_MOMENT_S)


FAULTS: dict[str, Fault] = {
    "kill -9 of the daemon": kill_daemon,
    "SIGTERM of the daemon": terminate_daemon,
    "SIGSTOP of the daemon": stop_daemon,
    "kill -9 of the worker": kill_worker,
    "SIGSTOP of the worker": stop_worker,
    "the worker cannot start": worker_refuses,
    "EIO on write": failing("w", errno.EIO),
    "EIO on sync": failing("f", errno.EIO),
    "EIO on rename": failing("r", errno.EIO),
    "ENOSPC on all that writes": failing(WRITING, errno.ENOSPC),
    "EROFS on all that writes": failing(WRITING + "u", errno.EROFS),
    "EACCES on open": failing("oc", errno.EACCES, "/data/images"),
    "EIO on all pictures": failing(ALL, errno.EIO, "/data/images"),
    "EIO on all": failing(ALL, errno.EIO),
    "EIO on reading the models": failing("ol", errno.EIO, "/data/models"),
    "no descriptors": no_descriptors,
    "the clock an hour ahead": clock_jumps(3600),
    "the clock a day back": clock_jumps(-86400),
    "the models are gone": models_gone,
}
