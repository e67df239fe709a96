"""Whether the daemon still lives, while calls wait for it that may take as long as they take.

A process that was stopped, or hangs, keeps its connections: nothing tells its callers but that it answers nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

QUIET_S = 5.0  # heard nothing for so long: it is asked
ANSWER_S = 10.0  # what it has for its answer


class Call(Protocol):
    def cancel(self) -> object: ...


class Pulse:
    """Asks, while calls wait, and cancels them when no answer comes. `answers`: whether one came within seconds."""

    def __init__(self, answers: Callable[[float], bool]) -> None:
        self._answers = answers
        self._calls: list[Call] = []
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        self._is_felt = False
        self._heard = 0.0
        self.is_silent = False

    def watch(self, call: Call) -> None:
        """Cancel it where the daemon falls silent, until it is forgotten."""
        with self._lock:
            self._calls.append(call)
            self._heard = time.monotonic()
            is_first, self._is_felt = not self._is_felt, True
        if is_first:
            threading.Thread(target=self._feel, daemon=True).start()

    def forget(self, call: Call) -> None:
        with self._lock:
            if call in self._calls:
                self._calls.remove(call)

    def note(self) -> None:
        """Something came."""
        self._heard = time.monotonic()

    def stop(self) -> None:
        self._is_over.set()

    def _feel(self) -> None:
        while not self._is_over.wait(QUIET_S):
            if self._calls and time.monotonic() - self._heard >= QUIET_S and not self._lives():
                self._cancel()
                return

    def _lives(self) -> bool:
        try:
            return self._answers(ANSWER_S)
        except ValueError:  # the connection was closed meanwhile
            return True

    def _cancel(self) -> None:
        self.is_silent = True
        with self._lock:
            calls, self._calls = self._calls, []
        for call in calls:
            call.cancel()
