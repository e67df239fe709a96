"""Memory and store of different minds: looked at twice, then mended, and counted."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from craft_protos.generate import GenerateSpec
from craft_protos.settings import DaemonSettings, WorkerSettings
from craftd.images.files import ImageFiles
from craftd.images.service import ImageService
from craftd.jobs import events, store
from craftd.jobs.drawing import Drawing
from craftd.jobs.events import Hub
from craftd.jobs.job import Job, Kind, State
from craftd.scheduler.active_job import ActiveJob
from craftd.scheduler.active_jobs import ActiveJobs
from craftd.scheduler.job_writer import JobWriter
from craftd.scheduler.pauses import Pauses
from craftd.scheduler.queue import JobQueue
from craftd.scheduler.reconcile import Reconciler
from craftd.store.database import Database
from craftd.workers.connection import Connection
from craftd.workers.handle import WorkerHandle
from craftd.workers.pool import WorkerPool

SPEC = GenerateSpec("an apple", "", "flat", 64, 64, 1, 1.0, 0, 1, "Euler", "png", False, ())


def job(name: str) -> Job:
    return Job(name, "me", f"request-{name}", "body", SPEC, time.time())


async def _nobody() -> Connection:
    raise OSError("no worker in this test")


class Scene:
    def __init__(self, folder: Path) -> None:
        self.database, self.hub, self.queue = Database(folder / "craft.db"), Hub(), JobQueue()
        images, pauses = ImageService(self.database, ImageFiles(folder / "images")), Pauses()
        writer, nothing = JobWriter(self.database, images, pauses), cast(Any, None)
        self.jobs = ActiveJobs(
            queue=self.queue,
            pool=WorkerPool([WorkerHandle(_nobody, WorkerSettings())]),
            writer=writer,
            pauses=pauses,
            hub=self.hub,
            works={Kind.GENERATE: Drawing(nothing, nothing, nothing, writer, self.hub)},
            changed=asyncio.Event(),
            lease_s=DaemonSettings().lease_s,
        )
        self.reconciler = Reconciler(self.database, self.jobs)

    @property
    def all(self) -> list[ActiveJob]:
        return list(self.jobs)

    async def store(self, one: Job) -> None:
        await self.database.run(lambda connection: store.insert(connection, one))


@pytest.fixture
async def scene(tmp_path: Path) -> Any:
    made = Scene(tmp_path)
    yield made
    await made.database.close()


async def test_nothing_is_amiss_with_a_job_that_waits(scene: Scene) -> None:
    await scene.store(job("a"))
    scene.jobs.accept(job("a"))
    assert [await scene.reconciler.look() for _ in range(3)] == [0, 0, 0]
    assert not scene.reconciler.warnings


async def test_a_stored_job_that_nobody_knows_is_taken_up(scene: Scene) -> None:
    await scene.store(job("a"))
    assert await scene.reconciler.look() == 0 and not scene.all  # it may be on its way
    assert await scene.reconciler.look() == 1 and scene.queue.position("a") == 0
    assert scene.jobs.is_waiting("a") and "1 jobs" in scene.reconciler.warnings[0]
    assert await scene.reconciler.look() == 0


async def test_an_end_that_only_the_store_knows_is_told(scene: Scene) -> None:
    await scene.store(replace(job("a"), state=State.SUCCEEDED, finish_time=1.0))
    scene.jobs.accept(job("a"))
    watcher = scene.hub.subscribe("a")
    assert [await scene.reconciler.look() for _ in range(2)] == [0, 1]
    told = await watcher.next()
    assert isinstance(told, events.Finished) and told.view.job.state is State.SUCCEEDED
    assert not scene.all and not scene.jobs.is_waiting("a")


async def test_a_job_that_is_nowhere_waits_again(scene: Scene) -> None:
    await scene.store(job("a"))
    scene.jobs.accept(job("a"))
    scene.queue.remove("a")
    assert [await scene.reconciler.look() for _ in range(2)] == [0, 1]
    assert scene.jobs.is_waiting("a")


async def test_the_end_that_came_first_is_the_one_that_is_told(scene: Scene) -> None:
    await scene.store(job("a"))
    scene.jobs.accept(job("a"))
    watcher = scene.hub.subscribe("a")
    first = replace(job("a"), state=State.SUCCEEDED, finish_time=1.0)
    committed = scene.database.submit(lambda connection: store.finish(connection, first))
    ended = await scene.jobs.end(scene.all[0], State.CANCELLED)
    assert (await committed).state is ended.state is State.SUCCEEDED
    told = await watcher.next()
    assert isinstance(told, events.Finished) and told.view.job.state is State.SUCCEEDED
