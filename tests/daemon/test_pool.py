"""Two workers in one pool: each has its own jobs, and its death is theirs alone."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
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
from craftd.workers.speeds import Speeds

from tests.home import HANG_S

FAKE = WorkerSettings(module="craftd.fakeworker", device="cpu", max_rows=1)  # two jobs at a time: one more than fits


class Models:
    """One model, of no files."""

    manifest = Manifest("flat", "sd", "StableDiffusionPipeline")

    def known_manifest(self, name: str) -> Manifest:
        return self.manifest

    async def manifest_now(self, name: str) -> Manifest:
        return self.manifest


class SlowStarts(Speeds):
    """Nothing is worth the start of a worker that could be done by another."""

    start_s = 1000.0


class Scene:
    """A scheduler over fake workers."""

    def __init__(self, folder: Path, speeds: Speeds, count: int = 2) -> None:
        self.database, self.hub = Database(folder / "craft.db"), Hub()
        self.folders = [folder / f"worker{number}" for number in range(count)]
        connects = [partial(LocalConnection.start, FAKE, one) for one in self.folders]
        handles = [WorkerHandle(connect, FAKE, name=f"cpu-{number + 1}") for number, connect in enumerate(connects)]
        self.pool = WorkerPool(handles, speeds)
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

    async def add(self, name: str, prompt: str = "[held] an apple", count: int = 1) -> None:
        spec = GenerateSpec(prompt, "", "flat", 64, 64, 1, 1.0, 0, count, "Euler", "png", False, ())
        job = Job(name, "me", f"request-{name}", "body", spec, time.time())
        await self.database.run(lambda connection: store.insert(connection, job))
        self.jobs.accept(job)

    def of(self, worker: WorkerHandle) -> list[ActiveJob]:
        return [one for one in self.jobs if any(having is worker for having, _ in one.dispatches)]

    @staticmethod
    def pid_of(worker: WorkerHandle) -> int:
        """Of its process. Raises ProcessLookupError where it has none."""
        if worker.vitals is None:
            raise ProcessLookupError
        return worker.vitals.pid

    async def finish(self, name: str) -> Job:
        """The job, as watchers hear of it."""
        watcher = self.hub.subscribe(name)
        while not isinstance(event := await watcher.next(), Finished):
            assert event is not None
        self.hub.unsubscribe(watcher)
        return event.view.job


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with playing(Scene(tmp_path, SlowStarts())) as made:
        yield made


@contextlib.asynccontextmanager
async def playing(scene: Scene) -> AsyncIterator[Scene]:
    running = [asyncio.create_task(scene.scheduler.run()), asyncio.create_task(scene.pool.run())]
    yield scene
    await scene.scheduler.drain(0)
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    await scene.database.close()


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
    assert set(scene.pool.loaded_on("flat")) <= {"cpu-1", "cpu-2"}


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


async def test_a_second_is_started_where_the_first_is_busy_for_longer_than_that_takes(tmp_path: Path) -> None:
    async with playing(Scene(tmp_path, Speeds())) as scene:
        first, second = scene.pool.workers
        await scene.add("a")
        await _until(lambda: len(scene.of(first)) == 1 and scene.pool.loaded_on("flat") == ("cpu-1",))
        await scene.add("b")
        await _until(lambda: len(scene.of(second)) == 1)
        assert len(scene.of(first)) == 1 and "quicker" in scene.of(second)[0].placed


async def test_a_drained_worker_finishes_what_it_has_and_is_given_nothing(scene: Scene) -> None:
    first, second = scene.pool.workers
    await scene.add("a")
    await _until(lambda: len(scene.of(first)) == 1)
    scene.pool.drain("cpu-1")
    await scene.add("b")
    await _until(lambda: len(scene.of(second)) == 1)
    assert len(scene.of(first)) == 1
    (scene.folders[0] / "release").touch()
    await _until(lambda: first.vitals is None)
    assert (first.restarts, first.state) == (0, "OFF")
    scene.pool.drain("cpu-2")
    await scene.add("c")
    assert scene.jobs.why_waiting(next(one for one in scene.jobs if one.job.id == "c")).startswith("no worker is given")
    scene.pool.resume("cpu-1")
    assert (await scene.finish("c")).state is State.SUCCEEDED


async def test_a_model_leaves_a_worker_that_has_no_use_for_it_while_another_draws_with_it(tmp_path: Path) -> None:
    async with playing(Scene(tmp_path, SlowStarts())) as scene:
        first, second = scene.pool.workers
        for worker in (first, second):
            worker.want()
        await _until(lambda: first.is_ready and second.is_ready)
        await second.residency.load(Models.manifest, 0.0)  # not kept once nobody needs it
        await scene.pool.load(Models.manifest, None)
        await scene.add("a")
        await _until(lambda: len(scene.of(first)) + len(scene.of(second)) == 1)
        busy = first if scene.of(first) else second
        assert busy.residency.is_needed("flat")
        assert not (second if busy is first else first).residency.is_needed("flat")


async def test_the_images_of_one_job_go_to_all_who_are_ready_and_what_one_loses_is_drawn_again(tmp_path: Path) -> None:
    async with playing(Scene(tmp_path, Speeds())) as scene:
        first, second = scene.pool.workers
        for worker in (first, second):
            worker.want()
        await _until(lambda: first.is_ready and second.is_ready)
        await scene.add("a", "[held] an apple", count=8)
        await _until(lambda: bool(scene.of(first) and scene.of(second)))
        (job,) = scene.jobs
        shares = [sorted(dispatch.indices) for _, dispatch in job.dispatches]
        assert sorted(index for share in shares for index in share) == list(range(8))
        assert all(len(share) > 1 for share in shares)
        finished = asyncio.create_task(scene.finish("a"))
        os.killpg(scene.pid_of(second), signal.SIGKILL)
        await _until(lambda: second.restarts == 1)
        for folder in scene.folders:
            (folder / "release").touch()
        assert (await finished).state is State.SUCCEEDED
        drawn = 'SELECT "index" FROM images ORDER BY "index"'
        rows = await scene.database.run(lambda connection: connection.execute(drawn).fetchall())
        assert [index for (index,) in rows] == list(range(8))


async def test_every_job_is_drawn_once_whatever_happens_to_one_of_three_workers(tmp_path: Path) -> None:
    """Kills from outside and deaths by jobs' own doing; the jobs of the other workers are given out once."""
    async with playing(Scene(tmp_path, Speeds(), count=3)) as scene:
        finished = {}
        for number in range(60):
            name = f"job{number}"
            await scene.add(name, "[killed once] an apple" if number % 20 == 0 else "[slow] an apple")
            finished[name] = asyncio.create_task(scene.finish(name))
        for worker, folder in zip(scene.pool.workers, scene.folders, strict=True):
            await _until(lambda worker=worker: bool(scene.of(worker)))
            with contextlib.suppress(ProcessLookupError):  # a job of its own has just ended it
                os.killpg(scene.pid_of(worker), signal.SIGKILL)
            await _until(lambda worker=worker: worker.restarts > 0)
            (folder / "hurry").touch()
        ended = [await task for task in finished.values()]
        assert {job.state for job in ended} == {State.SUCCEEDED}
        counts = "SELECT job_id, count(*) FROM images GROUP BY job_id"
        drawn = await scene.database.run(lambda connection: dict(connection.execute(counts).fetchall()))
        assert drawn == dict.fromkeys(finished, 1)


class QuickStarts(Speeds):
    start_s = 0.2


async def test_one_that_died_is_started_again_while_another_hangs_in_its_start(tmp_path: Path) -> None:
    scene = Scene(tmp_path, QuickStarts())
    first, second = scene.pool.workers
    first.failures = 1  # as after a death that was no progress since

    async def hangs() -> Any:
        await asyncio.Event().wait()

    second._connect = hangs
    second.want()
    async with playing(scene):
        await scene.add("a", "an apple")
        assert (await scene.finish("a")).state is State.SUCCEEDED
        assert not second.is_ready and math.isinf(scene.pool.starts_in_s(second))


async def test_images_whose_workers_died_meanwhile_are_shared_with_nobody(scene: Scene) -> None:
    first, _ = scene.pool.workers
    await scene.add("a", count=3)
    active = next(iter(scene.jobs))
    assert scene.scheduler._admission.shares(active, first) == {first: (0, 1, 2)}  # none of them has started yet


async def test_a_worker_is_called_by_its_device_after_its_process_has_ended(tmp_path: Path) -> None:
    asked = replace(FAKE, device="auto")
    worker = WorkerHandle(partial(LocalConnection.start, asked, tmp_path), asked)
    running = asyncio.create_task(worker.run())
    assert worker.name == "auto"
    worker.want()
    await _until(lambda: worker.is_ready)
    device = worker.name
    await worker.end("nothing to do")
    assert device not in ("", "auto") and worker.name == device
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
