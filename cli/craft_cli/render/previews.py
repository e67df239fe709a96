"""Pictures of the latest steps above the line that tells progress: each in the place of the one before, then gone."""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Callable
from typing import TextIO

from craft_cli.render import terminal

_EVERY_S = 0.2  # a terminal draws no faster
_BELOW = 2  # rows: of the progress line, and of the cursor after it
_ROW_PIXELS = 10  # a terminal's rows are at least as high


def rows() -> int:
    """How many of the terminal's rows a preview takes; 0 where none can be shown."""
    return max(0, min(terminal.MOST_ROWS, shutil.get_terminal_size().lines - _BELOW)) if terminal.protocol() else 0


class Previews:
    """The room for them on a stream that is a terminal. Between calls the cursor stands on the row below."""

    def __init__(self, stream: TextIO, now: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._now, self._rows = stream, now, rows()
        self._latest: dict[int, bytes] = {}  # by the pictures' indices
        self._drawn_at: float | None = None

    def take(self, index: int, preview: bytes) -> bool:
        """Note a step's picture, a JPEG; says whether it is time to draw it."""
        self._latest[index] = preview
        return bool(self._rows) and (self._drawn_at is None or self._now() - self._drawn_at >= _EVERY_S)

    def draw(self) -> None:
        """The latest of each picture; the room is made at first."""
        room = "\n" * self._rows if self._drawn_at is None else ""
        self._drawn_at = self._now()
        up, down = f"\x1b[{self._rows}A\r", f"\x1b[{self._rows}B\r"
        self._write(f"{room}{up}\x1b[J\x1b7{self._drawn()}\x1b8{down}")

    def close(self) -> None:
        """Leave the terminal as it was before them."""
        if self._drawn_at is not None:
            forget = f"\x1b_Ga=d,d=I,i={os.getpid()},q=2\x1b\\" if terminal.protocol() == "kitty" else ""
            self._write(f"{forget}\x1b[{self._rows}A\r\x1b[J")

    def _drawn(self) -> str:
        pictures = [self._latest[index] for index in sorted(self._latest)]
        sheet = terminal.grid(pictures, self._rows * _ROW_PIXELS // math.ceil(math.sqrt(len(pictures))))
        name = terminal.protocol()
        if name == "kitty":
            return terminal.kitty(sheet, self._rows, os.getpid())
        return terminal.ENCODERS[name](sheet, self._rows)

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
