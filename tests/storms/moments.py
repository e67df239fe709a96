"""When a fault comes: each brings a scene to a moment of a job's life, or of the daemon's, and returns in it.

What was held for that is let go by `Scene.settle`.
"""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable

from tests.storms.scene import Scene
from tests.storms.shim import WRITING, Order

Moment = Callable[[Scene], Awaitable[None]]


async def idle(scene: Scene) -> None:
    """A job has ended; its worker waits for the next."""
    await scene.ask()
    await scene.settle()


async def starting(scene: Scene) -> None:
    """The daemon has come to some point of its start, with jobs that it must find again."""
    scene.hold()
    for _ in range(3):
        await scene.ask("[held]")
    await scene.keeper.end()
    scene.shim.order(Order(WRITING + "o", mode="h", skip=scene.chance.randrange(40), count=1))
    await scene.keeper.spawn()
    if not await scene.shim.hit(timeout_s=2):  # it was ready before
        scene.shim.release()


async def starting_worker(scene: Scene) -> None:
    """A job waits for its worker, which has not said hello."""
    await idle(scene)
    for worker in scene.keeper.workers:
        worker.kill()
    await scene.ask()


async def queued(scene: Scene) -> None:
    """The worker is full, and others wait."""
    scene.hold()
    await scene.runs(await scene.ask("[held]", count=4))
    for _ in range(4):
        await scene.ask()


async def loading(scene: Scene) -> None:
    """The worker loads a job's model."""
    scene.hold()
    await scene.runs(await scene.ask("[held load]"))


async def drawing(scene: Scene) -> None:
    """Some steps of some jobs are done."""
    jobs = [await scene.ask("[slow]", steps=12, count=2) for _ in range(3)]
    await scene.steps(jobs[0])
    await scene.heard(scene.chance.randrange(8))


async def saving(scene: Scene) -> None:
    """A picture's bytes are written, and neither its name nor its row are on disk."""
    scene.shim.order(Order("f", "/images/", mode="h", skip=scene.chance.randrange(2), count=1))
    for _ in range(2):
        await scene.ask(count=2)
    await scene.shim.hit()


async def storing(scene: Scene) -> None:
    """A picture's file is there under its name, and its row is not."""
    scene.shim.order(Order("r", "/images/", mode="h"))
    for _ in range(2):
        await scene.ask(count=2)
    await scene.shim.hit()
    scene.shim.order(Order("w", "craft.db-wal", mode="h"))
    await scene.shim.hit()


async def ending(scene: Scene) -> None:
    """A job was cancelled, and that is being stored."""
    scene.hold()
    jobs = [await scene.ask("[held]") for _ in range(2)]
    await scene.runs(jobs[0])
    scene.shim.order(Order("w", "craft.db-wal", mode="h"))
    scene.begin(scene.caller.cancel(jobs[0]))
    await scene.shim.hit()


async def draining(scene: Scene) -> None:
    """The daemon was told to stop, while a job is drawn and others wait."""
    await queued(scene)
    before = scene.log_bytes
    scene.keeper.wish(signal.SIGTERM)
    await scene.logged("draining", since=before)


MOMENTS: dict[str, Moment] = {
    "idle": idle,
    "starting": starting,
    "starting the worker": starting_worker,
    "queued": queued,
    "loading": loading,
    "drawing": drawing,
    "saving": saving,
    "storing": storing,
    "ending": ending,
    "draining": draining,
}
