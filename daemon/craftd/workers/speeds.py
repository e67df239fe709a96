"""How long workers take here: to start, to load a model, to draw a picture with it. Placement asks."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from craft_protos.worker_pb2 import FromWorker

from craftd.workers.connection import Death

if TYPE_CHECKING:
    from craftd.workers.handle import WorkerHandle

_KEPT = 0.9  # of what was measured before, beside a new measurement
_START_S, _IMAGE_S, _LOAD_S = 10.0, 5.0, 5.0  # where nothing was measured yet


@dataclass
class _Mean:
    """Of what was measured lately, older measurements counting less. Seconds."""

    total_s: float = 0.0
    count: float = 0.0

    def add(self, seconds: float) -> None:
        self.total_s = self.total_s * _KEPT + seconds
        self.count = self.count * _KEPT + 1

    def or_else(self, unknown_s: float) -> float:
        return self.total_s / self.count if self.count else unknown_s


class Speeds:
    """Listens to the workers. `clock`: seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._start = _Mean()
        self._loads: dict[str, _Mean] = {}
        self._images: dict[str, _Mean] = {}
        self._loading: dict[tuple[WorkerHandle, str], float] = {}  # since when
        self._last_image: dict[WorkerHandle, float] = {}

    @property
    def start_s(self) -> float:
        """From the wish for a process to its hello."""
        return self._start.or_else(_START_S)

    def load_s(self, model: str) -> float:
        """Until a model is in memory."""
        return self._loads.get(model, _Mean()).or_else(_LOAD_S)

    def image_s(self, model: str) -> float:
        """From one picture to the next, in whatever batches they are drawn."""
        return self._images.get(model, _Mean()).or_else(_IMAGE_S)

    def on_ready(self, worker: WorkerHandle, hello: FromWorker.Hello) -> None:
        if worker.wanted_at is not None and not worker.failures:
            self._start.add(self._clock() - worker.wanted_at)

    def on_frame(self, worker: WorkerHandle, frame: FromWorker) -> None:
        match frame.WhichOneof("frame"):
            case "loading":
                self._loading.setdefault((worker, frame.loading.model), self._clock())
            case "loaded" if (since := self._loading.pop((worker, frame.loaded.model), None)) is not None:
                self._loads.setdefault(frame.loaded.model, _Mean()).add(self._clock() - since)
            case "image":
                self._on_image(worker, frame.image)

    def on_death(self, worker: WorkerHandle, death: Death) -> None:
        self._last_image.pop(worker, None)
        self._loading = {key: since for key, since in self._loading.items() if key[0] is not worker}

    def on_start_failed(self, worker: WorkerHandle, why: str) -> None:
        """Says nothing of speeds."""

    def _on_image(self, worker: WorkerHandle, frame: FromWorker.ImageDone) -> None:
        """Time counts from the last picture, or from the dispatch that ended the worker's rest."""
        now, dispatch = self._clock(), worker.dispatches.find(frame.job_id, frame.epoch)
        if dispatch is not None:
            since = max(self._last_image.get(worker, 0.0), worker.busy_since)
            self._images.setdefault(dispatch.model, _Mean()).add(max(0.0, now - since - frame.load_s))
        self._last_image[worker] = now
