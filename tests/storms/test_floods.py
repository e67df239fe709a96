"""More than a daemon can take: connections that say nothing, large messages, more jobs than there is room for."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
from collections.abc import AsyncIterator

import grpc.aio
import psutil
import pytest
from craft_protos import jobs_pb2, jobs_pb2_grpc

from tests.home import HANG_S
from tests.storms.callers import drawing
from tests.storms.checker import summary
from tests.storms.scene import Scene, scene

pytestmark = pytest.mark.slow

_DESCRIPTORS = 160  # as many as the daemon may have open; it needs some fifty
_SILENT = 200
_LARGE = 3_500_000  # bytes of a prompt: within gRPC's own limit, far beyond ours
_MEGABYTE = 1 << 20


async def test_silent_connections_keep_nobody_out(storm_seed: int) -> None:
    async with scene(storm_seed) as one:
        one.caller.limit_s = 100
        one.keeper.limit_descriptors(_DESCRIPTORS)
        await one.ask()
        await one.settle()
        async with _silent(one):
            for _ in range(4):
                await one.ask(count=2)
            await one.settle()
        violations = [*await one.check_running(), *await one.check_stopped()]
    assert not violations, summary(violations)


@contextlib.asynccontextmanager
async def _silent(one: Scene) -> AsyncIterator[None]:
    """Connections to the socket of the daemon that never say a word."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with contextlib.ExitStack() as stack:
        for _ in range(_SILENT):
            line = stack.enter_context(socket.socket(socket.AF_UNIX))
            line.settimeout(1)
            with contextlib.suppress(OSError):
                line.connect(str(one.home.paths.socket))
        yield


async def test_large_messages_are_refused_and_their_memory_given_back(storm_seed: int) -> None:
    async with scene(storm_seed) as one:
        await one.ask()
        await one.settle()
        before = psutil.Process(one.keeper.pid).memory_info().rss
        refused = await asyncio.gather(*(_send_large(one) for _ in range(64)))
        most = psutil.Process(one.keeper.pid).memory_info().rss
        await one.ask()
        await one.settle()
        violations = [*await one.check_running(), *await one.check_stopped()]
    assert not violations, summary(violations)
    assert set(refused) <= {"INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"}
    assert most - before < 96 * _MEGABYTE, f"{before / _MEGABYTE:.0f} MB, then {most / _MEGABYTE:.0f} MB"


async def _send_large(one: Scene) -> str:
    """A call on a connection of its own; how it was refused."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(one.keeper.address, options=options) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await jobs_pb2_grpc.JobsStub(channel).CreateJob(drawing("x" * _LARGE, seed=1), timeout=HANG_S)
        return refused.value.code().name


async def test_a_flood_of_jobs_is_taken_as_far_as_there_is_room(storm_seed: int) -> None:
    async with scene(storm_seed, CRAFT_DAEMON_QUEUE_LIMIT="40") as one:
        one.hold()
        await one.runs(await one.ask("[held]", count=4))
        flood = [drawing("[held]", seed=number, steps=1) for number in range(120)]
        answers = await asyncio.gather(*(_try(one, asked) for asked in flood))
        assert 40 <= answers.count("") <= 41 and set(answers) == {"", "RESOURCE_EXHAUSTED"}
        for asked in flood:  # those that were refused come again
            one.begin(one.caller.draw(asked))
        await one.settle()
        violations = [*await one.check_running(), *await one.check_stopped()]
    assert not violations, summary(violations)


async def _try(one: Scene, asked: jobs_pb2.CreateJobRequest) -> str:
    try:
        one.journal.note_created(asked, await one.caller.jobs.CreateJob(asked, timeout=HANG_S))
    except grpc.aio.AioRpcError as error:
        return error.code().name
    return ""
