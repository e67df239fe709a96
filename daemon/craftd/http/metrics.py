"""What Prometheus reads. Each daemon has a registry of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from craft_protos.worker_pb2 import FromWorker
from prometheus_client import CollectorRegistry, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from craftd.bot_process import BotState, BotStatus
from craftd.control import Control, DaemonStatus
from craftd.http.lag import LoopLag
from craftd.jobs.job import State
from craftd.jobs.service import JobService
from craftd.jobs.store import JobCounts
from craftd.workers.connection import Death
from craftd.workers.handle import WorkerHandle
from craftd.workers.pool import WorkerPool

MEDIA_TYPE = CONTENT_TYPE_LATEST
_STEP_BUCKETS_S = (0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1, 2, 5, 10, 30)


class Metrics:
    def __init__(self, control: Control, jobs: JobService, pool: WorkerPool, lag: LoopLag) -> None:
        self._control = control
        self._jobs = jobs
        self._registry = CollectorRegistry()
        self._state = _StateCollector(pool)
        self._registry.register(self._state)
        ProcessCollector(registry=self._registry)
        self._registry.register(lag.histogram)
        steps = Histogram(
            "craft_step_seconds",
            "From one denoising step of an image to its next.",
            buckets=_STEP_BUCKETS_S,
            registry=self._registry,
        )
        pool.listen(StepTimes(steps.observe))

    async def text(self) -> bytes:
        """In the format of MEDIA_TYPE."""
        status = self._control.status()
        stored = await self._jobs.tally()
        unfinished = {State.QUEUED: status.queued, State.RUNNING: status.running}
        self._state.show(status, replace(stored, jobs={**stored.jobs, **unfinished}))
        return generate_latest(self._registry)


class _StateCollector(Collector):
    """The daemon as it was last shown."""

    def __init__(self, pool: WorkerPool) -> None:
        self._pool = pool
        self._shown: tuple[DaemonStatus, JobCounts] | None = None

    def show(self, status: DaemonStatus, tally: JobCounts) -> None:
        self._shown = (status, tally)

    def collect(self) -> Iterator[Metric]:
        if self._shown is None:
            return
        status, tally = self._shown
        jobs = GaugeMetricFamily("craft_jobs", "Jobs by state, all that are stored.", labels=["state"])
        for state, count in tally.jobs.items():
            jobs.add_metric([state.value.lower()], count)
        yield jobs
        yield GaugeMetricFamily("craft_queue_depth", "Jobs that wait for their turn.", status.queued)
        yield CounterMetricFamily("craft_images", "Images made since the database was.", tally.images_made)
        yield CounterMetricFamily(
            "craft_worker_restarts", "Workers that died and were not meant to.", self._pool.restarts
        )
        yield GaugeMetricFamily(
            "craft_faults", "Faults of the surroundings that jobs wait out: disk, worker, models.", len(status.faults)
        )
        yield CounterMetricFamily(
            "craft_jobs_mended", "Jobs found out of step with the store: should be 0.", status.mended
        )
        yield GaugeMetricFamily("craft_front_memory_bytes", "Resident memory of the daemon.", status.rss_bytes)
        yield from _worker_families(status)
        if status.bot is not None:
            yield from _bot_families(status.bot)
        build = GaugeMetricFamily("craft_build_info", "Always 1.", labels=["version"])
        build.add_metric([status.version], 1)
        yield build


class StepTimes:
    """Listens to the workers, and measures from an image's step to its next. `clock`: seconds."""

    def __init__(self, observe: Callable[[float], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._observe = observe
        self._clock = clock
        self._last: dict[str, dict[int, tuple[int, float]]] = {}  # job -> image -> its last step, and when that came

    def on_ready(self, worker: WorkerHandle, hello: FromWorker.Hello) -> None:
        """Nothing of it matters here."""

    def on_frame(self, worker: WorkerHandle, frame: FromWorker) -> None:
        match frame.WhichOneof("frame"):
            case "step":
                self._on_step(frame.step)
            case "done":
                self._last.pop(frame.done.job_id, None)
            case "failed":
                self._last.pop(frame.failed.job_id, None)

    def on_death(self, worker: WorkerHandle, death: Death) -> None:
        self._last.clear()

    def on_start_failed(self, worker: WorkerHandle, why: str) -> None:
        self._last.clear()

    def _on_step(self, frame: FromWorker.Step) -> None:
        """Quick steps are told several at once."""
        images, now = self._last.setdefault(frame.job_id, {}), self._clock()
        step, then = images.get(frame.index, (frame.step, now))
        for _ in range(step, frame.step):
            self._observe((now - then) / (frame.step - step))
        images[frame.index] = (frame.step, now)


def _bot_families(bot: BotStatus) -> Iterator[Metric]:
    states = GaugeMetricFamily("craft_bot_state", "The Telegram bot's state: 1 for the one it is in.", labels=["state"])
    for state in BotState:
        states.add_metric([state.value.lower()], state is bot.state)
    yield states
    yield CounterMetricFamily("craft_bot_restarts", "Times that the bot's process was started again.", bot.restarts)
    yield CounterMetricFamily("craft_bot_updates", "Updates received since the bot's process started.", bot.updates)
    yield CounterMetricFamily(
        "craft_bot_api_errors", "Errors of Telegram's since the bot's process started.", bot.api_errors
    )
    yield GaugeMetricFamily("craft_bot_waiting", "Updates that the bot has not answered yet.", bot.waiting)


def _worker_families(status: DaemonStatus) -> Iterator[Metric]:
    workers = GaugeMetricFamily(
        "craft_workers", "Worker processes by what they do.", labels=["worker", "device", "state"]
    )
    memory = GaugeMetricFamily(
        "craft_worker_memory_bytes",
        "A worker's memory: resident, and on its device.",
        labels=["worker", "device", "kind"],
    )
    calls = CounterMetricFamily(
        "craft_worker_predict_calls", "Model calls since the worker started.", labels=["worker", "device"]
    )
    for worker in status.workers:
        workers.add_metric([worker.name, worker.device, worker.state.lower()], 1)
        memory.add_metric([worker.name, worker.device, "resident"], worker.rss_bytes)
        memory.add_metric([worker.name, worker.device, "device"], worker.device_bytes)
        calls.add_metric([worker.name, worker.device], worker.predict_calls)
    yield from (workers, memory, calls)
