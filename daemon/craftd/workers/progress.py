"""Is the worker getting on? Progress counts, not a pulse: a heartbeat proves life only."""

from __future__ import annotations

from craft_protos.settings import WorkerSettings
from craft_protos.worker_pb2 import FromWorker, ToWorker

_PROOFS = {"hello", "loading", "loaded", "unloaded", "load_failed", "started", "step", "image", "done", "failed"} | {
    "preparing",
    "training",
    "sample",
    "checkpoint",
    "lora",
}


class Progress:
    """What the worker has to do, and since when it has been silent. Pure: the caller brings the clock."""

    def __init__(self, settings: WorkerSettings, now: float) -> None:
        self._settings = settings
        self._last = now
        self._counter = 0
        self._has_started = False
        self._jobs: set[tuple[str, int]] = set()
        self._loads: set[str] = set()
        self._loaded: set[str] = set()

    def gave(self, frame: ToWorker, now: float) -> None:
        """It was handed `frame`."""
        kind = frame.WhichOneof("frame")
        if not self.is_busy:
            self._last = now
        if kind == "dispatch":
            self._jobs.add((frame.dispatch.job_id, frame.dispatch.epoch))
            self._loads |= {frame.dispatch.model.name} - self._loaded
        elif kind == "load":
            self._loads.add(frame.load.model.name)

    def saw(self, frame: FromWorker, now: float) -> None:
        """It sent `frame`."""
        kind = frame.WhichOneof("frame")
        if kind in _PROOFS or (kind == "stats" and frame.stats.progress > self._counter):
            self._last = now
        match kind:
            case "hello":
                self._has_started = True
            case "stats":
                self._counter = max(self._counter, frame.stats.progress)
            case "done":
                self._jobs.discard((frame.done.job_id, frame.done.epoch))
            case "failed":
                self._jobs.discard((frame.failed.job_id, frame.failed.epoch))
            case "loaded":
                self._loaded.add(frame.loaded.model)
                self._loads.discard(frame.loaded.model)
            case "load_failed":
                self._loads.discard(frame.load_failed.model)
            case "unloaded":
                self._loaded.discard(frame.unloaded.model)
        if not self._jobs and kind in ("done", "failed"):
            self._loads.clear()

    @property
    def is_loading(self) -> bool:
        return bool(self._loads)

    @property
    def is_busy(self) -> bool:
        return not self._has_started or bool(self._jobs) or bool(self._loads)

    @property
    def limit_s(self) -> float:
        is_slow = self.is_loading or not self._has_started
        return self._settings.load_timeout_s if is_slow else self._settings.stall_timeout_s

    @property
    def deadline(self) -> float | None:
        """When it counts as hung, if it stays silent; None while it has nothing to do."""
        return self._last + self.limit_s if self.is_busy else None
