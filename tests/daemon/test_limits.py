"""What callers may take of the daemon: connections, and memory of their messages."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator

import grpc
import grpc.aio
import pytest
from craft_protos.jobs_pb2 import JOB_STATE_SUCCEEDED

from tests.daemon.harness import Daemon, request, running
from tests.home import HANG_S, Home

MIB = 1 << 20


@contextlib.contextmanager
def silent(daemon: Daemon, count: int) -> Iterator[list[socket.socket]]:
    """Connections that never say a word, as many as are taken."""
    sockets = []
    try:
        for _ in range(count):
            one = socket.socket(socket.AF_UNIX)
            sockets.append(one)
            one.settimeout(5)
            with contextlib.suppress(OSError):
                one.connect(str(daemon.home.paths.socket))
        yield sockets
    finally:
        for one in sockets:
            one.close()


async def test_silent_connections_leave_the_daemon_its_descriptors(make_home: Callable[..., Home]) -> None:
    async with running(make_home()) as daemon:
        await daemon.status()
        with silent(daemon, 1200):
            job = await daemon.finish((await daemon.create()).id)  # through the connection that was there
            assert job.state == JOB_STATE_SUCCEEDED
        async with grpc.aio.insecure_channel(daemon.address) as channel:
            await asyncio.wait_for(channel.channel_ready(), HANG_S)


async def test_a_flood_of_large_messages_is_refused_and_its_memory_given_back(daemon: Daemon) -> None:
    await daemon.finish((await daemon.create()).id)
    before = (await daemon.status()).rss_bytes
    for size, code in (
        (4 * MIB, grpc.StatusCode.RESOURCE_EXHAUSTED),
        (2 * MIB - 4096, grpc.StatusCode.INVALID_ARGUMENT),
    ):
        large = [daemon.jobs.CreateJob(request("x" * size)) for _ in range(64)]
        answers = await asyncio.gather(*large, return_exceptions=True)
        codes = {answer.code() for answer in answers if isinstance(answer, grpc.aio.AioRpcError)}
        assert len(answers) == 64 and codes == {code}
    async with asyncio.timeout(HANG_S):
        while (await daemon.status()).rss_bytes - before > 20 * MIB:
            continue
    with pytest.raises(grpc.aio.AioRpcError):
        await daemon.create("x" * 4 * MIB)
    assert (await daemon.finish((await daemon.create()).id)).state == JOB_STATE_SUCCEEDED
