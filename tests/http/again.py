"""A daemon that is killed and started again, on the port that it had."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from tests.daemon.harness import spawn_and_wait
from tests.http.shim import Shim


def free_port() -> int:
    """One that stays the same when the daemon starts again."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port: int = held.getsockname()[1]
    return port


def kill(shim: Shim) -> None:
    shim.process.send_signal(signal.SIGKILL)
    shim.process.wait()


@contextmanager
def running_again(shim: Shim) -> Iterator[None]:
    process, said = spawn_and_wait(shim.home)
    try:
        assert said.get("ready"), said
        yield
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
