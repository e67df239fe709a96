"""Checkpoints on their way to the disk, in a thread: a large one takes seconds, for which no picture need wait."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from craftd.worker.training import stored
from craftd.worker.training.stored import Stored


class Writer:
    """Writes one checkpoint at a time; calls `tell` in its thread once a step's checkpoint is on disk."""

    def __init__(self, folder: Path, tell: Callable[[int, Stored], None]) -> None:
        self._folder = folder
        self._tell = tell
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None
        self._telling = threading.Lock()
        self._is_closed = False

    def begin(self, step: int, make: Callable[[], bytes]) -> None:
        """Waits for the one before, if that is not written yet. Raises as `settle`."""
        self.settle()
        self._pending = self._thread.submit(self._write, step, make)

    def poll(self) -> None:
        """Learn what went wrong meanwhile. Raises as `settle`."""
        if self._pending is not None and self._pending.done():
            self.settle()

    def settle(self) -> None:
        """Wait for what is being written. Raises DISK_FULL, STORAGE_FAILED."""
        if self._pending is not None:
            written, self._pending = self._pending, None
            written.result()

    def close(self) -> None:
        """Stop; what is still being written is dropped."""
        with self._telling:
            self._is_closed = True
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _write(self, step: int, make: Callable[[], bytes]) -> None:
        made = stored.put(self._folder, make())
        with self._telling:
            if not self._is_closed:
                self._tell(step, made)
                return
        (self._folder / made.sha256).unlink(missing_ok=True)
