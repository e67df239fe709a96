"""Checkpoints on their way to the disk, in a thread: a large one takes seconds, for which no picture need wait."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from craftd.worker.training import stored
from craftd.worker.training.stored import Stored


class Writer:
    """One at a time. `tell` is called in the owner's thread, once a checkpoint of that step is safe."""

    def __init__(self, folder: Path, tell: Callable[[int, Stored], None]) -> None:
        self._folder = folder
        self._tell = tell
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: tuple[int, Future[Stored]] | None = None

    def begin(self, step: int, make: Callable[[], bytes]) -> None:
        """Waits for the one before, if that is not written yet. Raises as `settle`."""
        self.settle()
        self._pending = (step, self._thread.submit(lambda: stored.put(self._folder, make())))

    def poll(self) -> None:
        """Tell of what has been written meanwhile. Raises as `settle`."""
        if self._pending is not None and self._pending[1].done():
            self.settle()

    def settle(self) -> None:
        """Wait for what is being written, and tell of it. Raises DISK_FULL, STORAGE_FAILED."""
        if self._pending is not None:
            (step, written), self._pending = self._pending, None
            self._tell(step, written.result())

    def close(self) -> None:
        """What is still being written is for nobody."""
        if self._pending is not None:
            (_, written), self._pending = self._pending, None
            if not written.cancel():
                written.add_done_callback(self._discard)
        self._thread.shutdown(wait=False)

    def _discard(self, written: Future[Stored]) -> None:
        if written.exception() is None:
            (self._folder / written.result().sha256).unlink(missing_ok=True)
