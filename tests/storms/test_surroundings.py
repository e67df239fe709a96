"""What is no job's fault fails no job: they wait until the machine is itself again."""

from __future__ import annotations

import contextlib
import errno

import grpc.aio

from tests.home import HANG_S
from tests.storms.callers import drawing
from tests.storms.checker import summary
from tests.storms.scene import Scene, scene
from tests.storms.shim import WRITING, Order

_QUEUE = 100


async def test_a_worker_that_cannot_start_burns_no_queue(storm_seed: int) -> None:
    async with scene(storm_seed) as one:
        one.refuse()
        for _ in range(_QUEUE):
            await one.ask(steps=1)
        assert await one.warned("worker")
        one.refuse(is_refusing=False)
        await one.settle()
        violations = [*await one.check_running(), *await one.check_stopped()]
    assert not violations, summary(violations)


async def test_a_full_disk_burns_no_queue(storm_seed: int) -> None:
    async with scene(storm_seed) as one:
        one.hold()
        await one.runs(await one.ask("[held]", count=4))
        for _ in range(_QUEUE // 2):
            await one.ask(steps=1)
        one.shim.order(Order(WRITING, "/data/images", error=errno.ENOSPC))
        one.home.release()
        assert await one.shim.hit(6, timeout_s=HANG_S) == 6  # it is tried again, whatever callers hear meanwhile
        one.shim.release()
        await one.settle()
        violations = [*await one.check_running(), *await one.check_stopped()]
    assert not violations, summary(violations)


async def test_models_that_are_away_for_a_moment_burn_no_queue(storm_seed: int) -> None:
    async with scene(storm_seed) as one:
        one.hold()
        await one.runs(await one.ask("[held]", count=4))
        for _ in range(_QUEUE // 2):
            await one.ask("[held]", steps=1)  # that some still wait when the models go does not hang on speed
        with one.models_gone():
            await _until_refused(one)
            one.home.release()
            assert await one.warned("flat")
        await one.settle()
        violations = [*await one.check_running(), *await one.check_stopped()]
    assert not violations, summary(violations)


async def _until_refused(one: Scene) -> None:
    """What a daemon saw of its models a moment ago still counts: until it has looked again."""
    with contextlib.suppress(grpc.aio.AioRpcError):
        while True:
            asked = drawing("[held]", seed=one.chance.randrange(1 << 24), steps=1)
            job = await one.caller.jobs.CreateJob(asked, timeout=HANG_S)
            one.journal.note_created(asked, job)
            one.begin(one.caller.finish(job.id))
