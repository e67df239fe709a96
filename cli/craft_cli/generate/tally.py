"""How far a batch is: one line at the bottom of a terminal, out of the way of what is printed."""

from __future__ import annotations

import os
import threading
from typing import TextIO

_ERASE = "\r\x1b[2K"
_PLAIN_TERMINALS = ("", "dumb")


class Tally:
    """`3 of 40 done`. Safe to use from several threads; without a stream it counts in silence."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = None if os.environ.get("TERM", "") in _PLAIN_TERMINALS else stream
        self._lock = threading.Lock()
        self._begun = self._done = 0
        self._is_whole = self._is_hidden = False

    def begin(self) -> None:
        with self._lock:
            self._begun += 1
            self._draw()

    def finish(self) -> None:
        with self._lock:
            self._done += 1
            self._draw()

    def complete(self) -> None:
        """No more will begin."""
        with self._lock:
            self._is_whole = True
            self._draw()

    def hide(self) -> None:
        """Free the terminal's last line, until it is shown again: nobody who counts waits for what is printed there."""
        with self._lock:
            self._is_hidden = True
            self._write(_ERASE)

    def show(self) -> None:
        with self._lock:
            self._is_hidden = False
            self._draw()

    def close(self) -> None:
        with self._lock:
            self._write(_ERASE)
            self._stream = None

    def _draw(self) -> None:
        if self._is_hidden:
            return
        under_way = self._begun - self._done
        text = f"{self._done} of {self._begun} done" if self._is_whole else f"{self._done} done, {under_way} under way"
        self._write(_ERASE + text)

    def _write(self, text: str) -> None:
        try:
            if self._stream is not None:
                self._stream.write(text)
                self._stream.flush()
        except OSError:
            self._stream = None  # nobody looks any more
