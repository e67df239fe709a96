"""A sign of life for the front: what the engine does, and how far it has come."""

from __future__ import annotations

import time
from collections.abc import Callable

import psutil
from craft_protos.worker_pb2 import FromWorker

from craftd.worker.engine.engine import Engine
from craftd.worker.engine.progress_hooks import ProgressHooks
from craftd.worker.process.device import Device
from craftd.worker.process.reporter import Reporter

STATS_EVERY_S = 1.0


class Heartbeat:
    """Sends Stats at each change of what the engine does, and every second while it does anything.

    While one model call lasts, its blocks make it beat.
    """

    def __init__(
        self,
        engine: Engine,
        device: Device,
        reporter: Reporter,
        hooks: ProgressHooks,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._device = device
        self._reporter = reporter
        self._hooks = hooks
        hooks.listener = self.beat
        self._clock = clock
        self._process = psutil.Process()
        self._said = ""
        self._said_at = 0.0

    def beat(self) -> None:
        doing, now = self._engine.doing, self._clock()
        if doing != self._said or (doing != "idle" and now - self._said_at >= STATS_EVERY_S):
            self.say()

    def say(self) -> None:
        """Send Stats now."""
        doing = self._said = self._engine.doing
        self._said_at = self._clock()
        self._reporter.stats(
            FromWorker.Stats(
                predict_calls=self._engine.predict_calls,
                rss_bytes=self._process.memory_info().rss,
                device_bytes=self._device.used_bytes(),
                rows=self._engine.rows,
                progress=self._engine.progress + self._hooks.blocks,
                doing=doing,
            )
        )
