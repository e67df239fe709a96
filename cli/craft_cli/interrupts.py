"""Signals while a job is under way: the first one cancels it, the second one ends craft at once.

The work is done in a thread. The main thread waits for its end or for a signal, whichever comes first, so that a
handler only has to leave a note: an exception that a handler raises may strike anywhere, between taking a lock and
entering its `with` too, and then whoever waits for that lock waits for ever.
"""

from __future__ import annotations

import os
import select
import signal
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from types import FrameType
from typing import Generic, TypeVar

from craft_cli import errors

A = TypeVar("A")

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LEAVE_S = 2.0  # for the work to put down what it holds: a progress bar, an unfinished file


class Interrupted(BaseException):
    """Somebody wants craft to stop. Not a KeyboardInterrupt, so that no library swallows it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    @property
    def is_closed_pipe(self) -> bool:
        return self.number == signal.SIGPIPE


class Stopped(BaseException):
    """Ends the work's own thread, once somebody wants craft to stop."""


class _Work(Generic[A]):
    """What a thread does, and how it ended."""

    def __init__(self, do: Callable[[], A]) -> None:
        self._do = do
        self._is_over = threading.Event()
        self._error: BaseException | None = None
        self._result: list[A] = []
        self.news: SimpleQueue[int] = SimpleQueue()  # a signal's number; 0: it is over

    def begin(self) -> None:
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        try:
            self._result.append(self._do())
        except BaseException as error:  # the thread's outermost frame: the main thread raises it again
            self._error = error
        self._is_over.set()
        self.news.put(0)

    def leave(self) -> None:
        """Give it a moment to unwind."""
        self._is_over.wait(_LEAVE_S)

    def result(self) -> A:
        """What it returned. Raises what it raised."""
        if self._error is not None:
            raise self._error
        return self._result[0]


_stop = threading.Event()


def run(do: Callable[[], A], *, on_stop: Callable[[], object]) -> A:
    """What `do` returns or raises, done in a thread of its own.

    A signal, or the end of whoever reads our stdout: `on_stop` is called here, the work is given a moment to end,
    and Interrupted is raised.
    """
    work = _Work(do)
    _stop.clear()
    with _heard(work.news):
        work.begin()
        number = work.news.get()
        if number:
            _stop.set()
            on_stop()
            work.leave()
            raise Interrupted(number)
    return work.result()


def check() -> None:
    """Raises Stopped in work that is to end: asked wherever something would be begun, written or said."""
    if _stop.is_set():
        raise Stopped


def pause(seconds: float) -> None:
    """Sleep, unless the work is to end. Raises Stopped."""
    _stop.wait(seconds)
    check()


@contextmanager
def _heard(news: SimpleQueue[int]) -> Iterator[None]:
    """Within, the first signal is told to `news`; the second ends craft. SimpleQueue.put may interrupt itself."""

    def first(number: int, frame: FrameType | None) -> None:
        for other in _SIGNALS:
            signal.signal(other, _second)
        news.put(number)

    before = {number: signal.signal(number, first) for number in _SIGNALS}
    _watch_stdout(news)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _second(number: int, frame: FrameType | None) -> None:
    os._exit(errors.EXIT_INTERRUPTED)


def _watch_stdout(news: SimpleQueue[int]) -> None:
    """A pipe's writer learns of the reader's end only by writing; poll tells it earlier."""
    if sys.stdout is None or not hasattr(select, "poll"):
        return
    try:
        is_pipe = stat.S_ISFIFO(os.fstat(1).st_mode)
    except OSError:
        return
    if is_pipe:
        threading.Thread(target=_await_reader_gone, args=(news,), daemon=True).start()


def _await_reader_gone(news: SimpleQueue[int]) -> None:
    poll = select.poll()
    poll.register(1, 0)
    if poll.poll():
        news.put(signal.SIGPIPE)
