"""A daemon that is killed and started again, on the port that it had."""

from __future__ import annotations

import contextlib
import random
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from tests.daemon.harness import spawn_and_wait
from tests.http.shim import Shim

_given: set[int] = set()


def free_port() -> int:
    """One that the system gives to nobody by itself: it is still free when the daemon starts, and starts again."""
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as held, contextlib.suppress(OSError):
            held.bind(("127.0.0.1", port))
            if port not in _given:
                _given.add(port)
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
