"""sd_notify: whoever started the daemon as a service hears of its beginning and its end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import pytest

from tests.daemon.harness import running
from tests.home import HANG_S, Home


@pytest.fixture
def manager(home: Home) -> Iterator[socket.socket]:
    """Where a service manager listens; the daemon is told of it."""
    path = home.root / "notify"
    home.env["NOTIFY_SOCKET"] = str(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(path))
        sock.settimeout(HANG_S)
        yield sock


async def test_ready_and_stopping_are_told(home: Home, manager: socket.socket) -> None:
    async with running(home) as daemon:
        assert await asyncio.to_thread(manager.recv, 100) == b"READY=1"
        assert await daemon.stop() == 0
    assert await asyncio.to_thread(manager.recv, 100) == b"STOPPING=1"


@pytest.mark.parametrize("address", ["/nowhere/notify", "@nobody-listens-here", "/" + "x" * 200])
async def test_nobody_to_tell_is_logged_and_no_obstacle(home: Home, address: str) -> None:
    home.env["NOTIFY_SOCKET"] = address
    async with running(home) as daemon:
        record = await daemon.logged("the service manager was not told")
        assert (record["level"], record["state"]) == ("warning", "READY=1")
        assert await daemon.stop() == 0
