"""Signals while a job is under way: the first one cancels it, the second one ends craft at once."""

from __future__ import annotations

import os
import select
import signal
import stat
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from craft_cli import errors

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE)


class Interrupted(BaseException):
    """Somebody wants craft to stop. Not a KeyboardInterrupt, so that no library swallows it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    @property
    def is_closed_pipe(self) -> bool:
        return self.number == signal.SIGPIPE


@contextmanager
def raising() -> Iterator[None]:
    """Within, a signal (or the reader of our stdout going away) raises Interrupted, once."""
    before = {number: signal.signal(number, _first) for number in _SIGNALS}
    _watch_stdout()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _first(number: int, frame: FrameType | None) -> None:
    for other in _SIGNALS:
        signal.signal(other, signal.SIG_IGN if other == signal.SIGPIPE else _second)
    raise Interrupted(number)


def _second(number: int, frame: FrameType | None) -> None:
    os._exit(errors.EXIT_INTERRUPTED)


def _watch_stdout() -> None:
    """A pipe's writer learns of the reader's end only by writing; poll tells it earlier."""
    if sys.stdout is None or not hasattr(select, "poll"):
        return
    try:
        is_pipe = stat.S_ISFIFO(os.fstat(1).st_mode)
    except OSError:
        return
    if is_pipe:
        threading.Thread(target=_await_reader_gone, daemon=True).start()


def _await_reader_gone() -> None:
    poll = select.poll()
    poll.register(1, 0)
    if poll.poll():
        os.kill(os.getpid(), signal.SIGPIPE)
