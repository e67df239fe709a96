"""Two workers in one pool: each has its own jobs, and its death is theirs alone."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
from craft_protos.generate import GenerateSpec
from craft_protos.settings import WorkerSettings
from craftd.images.files import ImageFiles
from craftd.images.service import ImageService
from craftd.jobs import store
from craftd.jobs.drawing import Drawing
from craftd.jobs.events import Finished, Hub
from craftd.jobs.job import Job, Kind, State
from craftd.models.model import Manifest
from craftd.scheduler.active_job import ActiveJob
from craftd.scheduler.job_writer import JobWriter
from craftd.scheduler.pauses import Pauses
from craftd.scheduler.scheduler import Scheduler
from craftd.store.database import Database
from craftd.workers.handle import WorkerHandle
from craftd.workers.local import LocalConnection
from craftd.workers.pool import WorkerPool

from tests.home import HANG_S

FAKE = WorkerSettings(module="craftd.fakeworker", device="cpu", max_rows=1)  # two jobs at a time: one more than fits


class Models:
    """One model, of no files."""

    manifest = Manifest("flat", "sd", "StableDiffusionPipeline")

    def known_manifest(self, name: str) -> Manifest:
        return self.manifest

    async def manifest_now(self, name: str) -> Manifest:
        return self.manifest


class Scene:
    """A scheduler over two fake workers."""

    def __init__(self, folder: Path) -> None:
        self.database, self.hub = Database(folder / "craft.db"), Hub()
        self.folders = [folder / f"worker{number}" for number in range(2)]
        connects = [partial(LocalConnection.start, FAKE, one) for one in self.folders]
        self.pool = WorkerPool([WorkerHandle(connect, FAKE) for connect in connects])
        pauses, nothing = Pauses(), cast(Any, None)
        writer = JobWriter(self.database, ImageService(self.database, ImageFiles(folder / "images")), pauses)
        self.scheduler = Scheduler(
            database=self.database,
            models=cast(Any, Models()),
            pool=self.pool,
            hub=self.hub,
            writer=writer,
            pauses=pauses,
            works={Kind.GENERATE: Drawing(nothing, nothing, nothing, writer, self.hub)},
            lease_s=60.0,
        )
        self.jobs = self.scheduler.jobs

    async def add(self, name: str, prompt: str = "[held] an apple") -> None:
        spec = GenerateSpec(prompt, "", "flat", 64, 64, 1, 1.0, 0, 1, "Euler", "png", False, ())
        job = Job(name, "me", f"request-{name}", "body", spec, time.time())
        await self.database.run(lambda connection: store.insert(connection, job))
        self.jobs.accept(job)

    def of(self, worker: WorkerHandle) -> list[ActiveJob]:
        return [one for one in self.jobs if one.worker is worker and one.dispatch is not None]

    async def finish(self, name: str) -> Job:
        """The job, as watchers hear of it."""
        watcher = self.hub.subscribe(name)
        while not isinstance(event := await watcher.next(), Finished):
            assert event is not None
        self.hub.unsubscribe(watcher)
        return event.view.job


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    made = Scene(tmp_path)
    running = [asyncio.create_task(made.scheduler.run()), asyncio.create_task(made.pool.run())]
    yield made
    await made.scheduler.drain(0)
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    await made.database.close()


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(HANG_S):
        while not condition():  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.01)


async def test_one_dies_and_the_other_draws_on(scene: Scene) -> None:
    first, second = scene.pool.workers
    for name in "abcd":
        await scene.add(name)
    await _until(lambda: len(scene.of(first)) == len(scene.of(second)) == 2)
    lost, kept = scene.of(first), scene.of(second)
    finished = [asyncio.create_task(scene.finish(one.job.id)) for one in (*lost, *kept)]
    assert first.vitals is not None
    os.killpg(first.vitals.pid, signal.SIGKILL)
    await _until(lambda: any(one.epoch == 2 for one in lost))
    assert [one.epoch for one in kept] == [1, 1] and not any(one.job.is_suspect for one in kept)
    assert all(one.job.is_suspect and not one.job.attempts for one in lost)
    for folder in scene.folders:
        (folder / "release").touch()
    assert {job.state for job in await asyncio.gather(*finished)} == {State.SUCCEEDED}
    assert (first.restarts, second.restarts) == (1, 0)


async def test_a_second_is_started_only_for_what_the_first_has_no_room_for(scene: Scene) -> None:
    first, second = scene.pool.workers
    await scene.add("a")
    await _until(lambda: len(scene.of(first)) == 1)
    await scene.add("b")
    await _until(lambda: len(scene.of(first)) == 2)
    assert second.vitals is None
    await scene.add("c")
    await _until(lambda: len(scene.of(second)) == 1)
    assert scene.pool.loaded_on("flat") == ("cpu",) * len(scene.pool.loaded_on("flat"))


async def test_who_has_the_model_draws_before_who_would_load_it(scene: Scene) -> None:
    first, second = scene.pool.workers
    for worker in (first, second):
        worker.want()
    await _until(lambda: first.is_ready and second.is_ready)
    await second.residency.load(Models.manifest, None)
    await scene.add("a")
    await _until(lambda: len(scene.of(second)) == 1)
    assert not scene.of(first)


async def test_a_suspect_goes_alone_in_a_worker_and_others_use_the_other(scene: Scene) -> None:
    first, second = scene.pool.workers
    for name in "abc":
        await scene.add(name)
    await _until(lambda: len(scene.of(first)) == 2 and len(scene.of(second)) == 1)
    assert second.vitals is not None
    os.killpg(second.vitals.pid, signal.SIGKILL)
    await _until(lambda: len(scene.of(second)) == 1 and scene.of(second)[0].job.is_suspect)
    (folder,) = scene.folders[:1]
    (folder / "release").touch()
    await _until(lambda: not scene.of(first))
    await scene.add("d", "an apple")
    assert (await scene.finish("d")).state is State.SUCCEEDED
    assert len(scene.of(second)) == 1
