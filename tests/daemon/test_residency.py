"""Loading, keeping and unloading, against what a worker is told and says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from craft_protos.dispatch import Cancel, Dispatch, Load, Preview, Unload
from craft_protos.reasons import CraftError
from craft_protos.settings import WorkerSettings
from craft_protos.worker_pb2 import FromWorker
from craftd.models.model import Manifest
from craftd.workers.connection import Connection, Death
from craftd.workers.handle import WorkerHandle
from craftd.workers.residency import Residency

from tests.home import HANG_S

FLAT = Manifest("flat")
NAME = FLAT.name


class Told(WorkerHandle):
    """Starts nothing; keeps what the worker was told."""

    def __init__(self, *, is_ready: bool) -> None:
        super().__init__(_nobody, WorkerSettings())
        self._is_ready = is_ready
        self.frames: list[tuple[str, str]] = []
        self.news = asyncio.Event()

    def send(self, asked: Dispatch | Cancel | Load | Unload | Preview) -> None:
        assert isinstance(asked, Load | Unload)
        self.frames.append(("load", asked.model.name) if isinstance(asked, Load) else ("unload", asked.model))
        self.news.set()

    def want(self) -> None:
        self.news.set()

    async def hear(self) -> None:
        async with asyncio.timeout(HANG_S):
            await self.news.wait()
        self.news.clear()


async def _nobody() -> Connection:
    raise OSError("no worker in this test")


def _says(residency: Residency, **frame: object) -> None:
    residency.on_frame(Told(is_ready=True), FromWorker(**frame))  # type: ignore[arg-type]


def _loaded(residency: Residency) -> None:
    _says(residency, loaded=FromWorker.Loaded(model=NAME, resident_bytes=1))


def _unloaded(residency: Residency) -> None:
    _says(residency, unloaded=FromWorker.Unloaded(model=NAME, why="asked"))


@pytest.fixture
async def worker() -> Told:
    return Told(is_ready=True)


@pytest.fixture
async def residency(worker: Told) -> Residency:
    return Residency(worker, 300.0)


async def _until(condition: Callable[[], bool]) -> None:
    """Let the tasks have their turns."""
    async with asyncio.timeout(HANG_S):
        while not condition():  # noqa: ASYNC110 - nothing tells of a task's first turn
            await asyncio.sleep(0)


async def _ends_as_withdrawn(loading: asyncio.Task[None]) -> None:
    with pytest.raises(CraftError, match="unloaded before it was loaded") as told:
        await loading
    assert told.value.reason == "CANCELLED"


async def test_a_load_that_is_under_way_is_withdrawn_by_unload(worker: Told, residency: Residency) -> None:
    loading = asyncio.create_task(residency.load(FLAT, -1))
    await worker.hear()
    unloading = asyncio.create_task(residency.unload(NAME))
    await worker.hear()
    assert worker.frames == [("load", NAME), ("unload", NAME)]
    await _ends_as_withdrawn(loading)
    again = asyncio.create_task(residency.load(FLAT, None))
    await _until(lambda: residency.is_needed(NAME))
    _loaded(residency)
    await residency.tend()
    assert not unloading.done() and not again.done() and len(worker.frames) == 2
    _unloaded(residency)
    await unloading
    await worker.hear()  # what is asked for after that is loaded anew
    assert worker.frames[2:] == [("load", NAME)]
    _loaded(residency)
    await again
    assert residency.is_loaded(NAME)


async def test_a_load_that_waits_for_a_worker_is_withdrawn_by_unload() -> None:
    worker = Told(is_ready=False)
    residency = Residency(worker, 300.0)
    loading = asyncio.create_task(residency.load(FLAT, None))
    await worker.hear()
    await residency.unload(NAME)
    await _ends_as_withdrawn(loading)
    assert not worker.frames and not residency.is_needed(NAME)


async def test_unload_waits_for_the_jobs_that_need_what_is_loading(worker: Told, residency: Residency) -> None:
    residency.acquire(NAME)  # a job's
    unloading = asyncio.create_task(residency.unload(NAME))
    await _until(lambda: bool(residency._unloads))
    _loaded(residency)
    await residency.tend()
    assert not unloading.done() and not worker.frames
    residency.release(NAME)
    await residency.tend()
    assert worker.frames == [("unload", NAME)]
    residency.acquire("another")
    _unloaded(residency)
    await unloading


async def test_a_load_that_fails_ends_the_unload_too(worker: Told, residency: Residency) -> None:
    loading = asyncio.create_task(residency.load(FLAT, None))
    await worker.hear()
    unloading = asyncio.create_task(residency.unload(NAME))
    await worker.hear()
    _says(residency, load_failed=FromWorker.LoadFailed(model=NAME))
    await residency.tend()
    await unloading
    await _ends_as_withdrawn(loading)


async def test_a_worker_that_dies_ends_both(worker: Told, residency: Residency) -> None:
    loading = asyncio.create_task(residency.load(FLAT, None))
    await worker.hear()
    residency.on_death(worker, Death("SIGKILL", is_planned=False))
    with pytest.raises(CraftError, match="SIGKILL"):
        await loading
    await residency.unload(NAME)


@pytest.mark.parametrize(("keep_alive_s", "leaves"), [(None, False), (0.0, True), (-1.0, False), (1e-9, True)])
async def test_keep_alive_0_is_now(
    worker: Told, residency: Residency, keep_alive_s: float | None, leaves: bool
) -> None:
    loading = asyncio.create_task(residency.load(FLAT, keep_alive_s))
    await worker.hear()
    _loaded(residency)
    await loading
    await residency.tend()
    assert (("unload", NAME) in worker.frames) is leaves
    assert (residency.deadline is not None) is (keep_alive_s is None)
