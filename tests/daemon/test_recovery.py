"""kill -9, hangs, poison: every accepted job ends once, no image is torn or doubled."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio
import pytest
from craft_protos import images_pb2, jobs_pb2
from craft_protos.daemon_pb2 import WORKER_STATE_BUSY, ShutdownRequest
from craft_protos.jobs_pb2 import JOB_STATE_FAILED, JOB_STATE_SUCCEEDED

from tests.daemon import sends
from tests.daemon.harness import Daemon, is_whole, request, running, spawn, start
from tests.home import HANG_S, Home
from tests.pictures import picture

JOBS = 50


class Restarting:
    """A client that finds the daemon again whenever it was killed, as `craft` does."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.is_up = asyncio.Event()
        self.is_up.set()

    async def finish(self, asked: jobs_pb2.CreateJobRequest) -> jobs_pb2.Job:
        while True:
            await self.is_up.wait()
            daemon = self.daemon
            try:
                return await daemon.finish((await daemon.jobs.CreateJob(asked)).id)
            except (grpc.aio.AioRpcError, asyncio.CancelledError, AssertionError):
                if daemon is self.daemon and self.is_up.is_set():
                    raise

    async def kill(self) -> None:
        self.is_up.clear()
        await self.daemon.stop(signal.SIGKILL)
        self.daemon = await start(self.daemon.home)
        self.is_up.set()


async def test_fifty_jobs_survive_kills_of_worker_and_daemon(make_home: Callable[..., Home]) -> None:
    home = make_home(CRAFT_WORKER_MAX_ROWS="8")
    client = Restarting(await start(home))
    chance = random.Random(7)
    asked = [request(f"{number} [slow]", count=2, seed=number * 10, steps=3) for number in range(JOBS)]
    try:
        finishing = [asyncio.create_task(client.finish(one)) for one in asked]
        for target in ("worker", "daemon", "worker", "daemon", "daemon"):
            await _some_steps(client.daemon, chance.randrange(5, 30))
            if target == "daemon":
                await client.kill()
            elif pids := [worker.pid for worker in (await client.daemon.status()).workers]:
                os.kill(pids[0], signal.SIGKILL)
        jobs = await asyncio.gather(*finishing)
        assert {job.state for job in jobs} == {JOB_STATE_SUCCEEDED}
        assert len({job.id for job in jobs}) == JOBS
        await _check_images(client.daemon, jobs)
    finally:
        await client.daemon.stop()
    assert home.rows("SELECT count(*), count(DISTINCT job_id || '/' || \"index\") FROM images") == [(100, 100)]
    assert home.rows("SELECT DISTINCT state FROM jobs") == [("SUCCEEDED",)]
    assert len(list(home.paths.images_dir.glob("*.png"))) == 100


async def test_pictures_that_are_enlarged_survive_kills_of_worker_and_daemon(make_home: Callable[..., Home]) -> None:
    """Those that are sent to be enlarged, those that are enlarged once drawn, and those drawn again."""
    client = Restarting(await start(make_home(CRAFT_WORKER_MAX_ROWS="2")))
    data = picture(width=64, height=48)
    spec = {"upscale": jobs_pb2.Upscale(model="lanczos", scale=2.0)}
    hires = {"hires": jobs_pb2.Hires(scale=2.0, upscaler="lanczos")}
    kinds: tuple[dict[str, Any], ...] = (
        {"prompt": "", "steps": None, "start": jobs_pb2.Start(sha256=sends.sha256_of(data), strength=0.0), **spec},
        {"prompt": "an apple [slow]", "width": 64, "height": 48, **spec},
        {"prompt": "a pear [slow]", "width": 64, "height": 48, **hires},
    )
    try:
        await sends.put(client.daemon, data)
        finishing = [asyncio.create_task(client.finish(request(**kind))) for kind in kinds * 8]
        for target in ("worker", "daemon", "worker", "daemon"):
            await _some_steps(client.daemon, 6)
            if target == "daemon":
                await client.kill()
            elif pids := [worker.pid for worker in (await client.daemon.status()).workers]:
                os.kill(pids[0], signal.SIGKILL)
        jobs = await asyncio.gather(*finishing)
        assert {job.state for job in jobs} == {JOB_STATE_SUCCEEDED}
        assert [len(job.images) for job in jobs] == [1] * len({job.images[0].id for job in jobs})
        for job in jobs:
            assert is_whole(await client.daemon.file(job.images[0].id), (128, 96))
    finally:
        await client.daemon.stop()


async def _some_steps(daemon: Daemon, count: int) -> None:
    """A random moment: so many model calls from now, or the end of the work."""
    before = None
    while True:
        status = await daemon.status()
        if not status.queued and not status.running:
            return
        calls = sum(worker.predict_calls for worker in status.workers)
        before = calls if before is None or calls < before else before
        if calls >= before + count // 3:
            return


async def _check_images(daemon: Daemon, jobs: list[jobs_pb2.Job]) -> None:
    for job in jobs:
        assert [image.index for image in job.images] == [0, 1]
        assert [image.seed for image in job.images] == [job.generate.seed, job.generate.seed + 1]
        for image in job.images:
            assert is_whole(await daemon.file(image.id))


async def test_a_poisoned_job_fails_alone_at_its_third_death(daemon: Daemon) -> None:
    mates = [await daemon.create(f"mate {number} [held]") for number in range(3)]
    poison = await daemon.create("poison [held] [crash]")
    await daemon.has_begun(mates[0].id)
    daemon.home.release()
    ended = await daemon.finish(poison.id)
    assert (ended.state, ended.error.reason, ended.attempts) == (JOB_STATE_FAILED, "WORKER_DIED", 3)
    assert "SIGSEGV" in ended.error.message
    finished = [await daemon.finish(mate.id) for mate in mates]
    assert [(mate.state, mate.attempts) for mate in finished] == [(JOB_STATE_SUCCEEDED, 0)] * 3


async def test_a_job_that_killed_its_worker_once_is_drawn(daemon: Daemon) -> None:
    job = await daemon.finish((await daemon.create("[crash once]")).id)
    assert (job.state, job.attempts, len(job.images)) == (JOB_STATE_SUCCEEDED, 1, 1)


async def test_a_worker_that_hangs_is_replaced(make_home: Callable[..., Home]) -> None:
    home = make_home(CRAFT_WORKER_STALL_TIMEOUT_S="1")
    async with running(home) as daemon:
        job = await daemon.finish((await daemon.create("[hang]")).id)
        assert (job.error.reason, job.attempts) == ("WORKER_DIED", 3) and "no progress" in job.error.message
        assert (await daemon.finish((await daemon.create()).id)).state == JOB_STATE_SUCCEEDED


async def test_jobs_wait_for_a_worker_that_cannot_start_and_say_why(make_home: Callable[..., Home]) -> None:
    home = make_home(CRAFT_WORKER_MODULE="lateworker")
    home.env["PYTHONPATH"] = str(home.root)
    async with running(home) as daemon:
        jobs = [await daemon.create() for _ in range(5)]
        why = await daemon.waits_for(jobs[-1].id, "cannot be started")
        assert "No module named lateworker" in why
        assert any("No module named lateworker" in line for line in (await daemon.status()).warnings)
        shown = await daemon.jobs.GetJob(jobs_pb2.GetJobRequest(id=jobs[0].id))
        assert (shown.state, shown.why_waiting) == (jobs_pb2.JOB_STATE_QUEUED, why)
        (home.root / "lateworker.py").write_text("from craftd.fakeworker import main\nmain()\n")
        assert {(await daemon.finish(job.id)).state for job in jobs} == {JOB_STATE_SUCCEEDED}
        assert not (await daemon.status()).warnings


async def test_a_worker_of_another_version_is_not_taken(make_home: Callable[..., Home]) -> None:
    home = make_home(CRAFT_WORKER_MODULE="otherworker")
    home.env["PYTHONPATH"] = str(home.root)
    other = "import craftd.fakeworker\ncraftd.fakeworker.__version__ = '0.0.1'\ncraftd.fakeworker.main()\n"
    (home.root / "otherworker.py").write_text(other)
    async with running(home) as daemon:
        job = await daemon.create()
        assert "`craft daemon restart`" in await daemon.waits_for(job.id, "the hello of craft 0.0.1")
        (home.root / "otherworker.py").write_text("from craftd.fakeworker import main\nmain()\n")
        assert (await daemon.finish(job.id)).state == JOB_STATE_SUCCEEDED


async def test_kills_from_outside_never_count(daemon: Daemon) -> None:
    job, killed = await daemon.create("[held]"), 0
    for _ in range(4):
        killed = await _busy_worker(daemon, killed)
        os.kill(killed, signal.SIGKILL)
    await _busy_worker(daemon, killed)
    daemon.home.release()
    ended = await daemon.finish(job.id)
    assert (ended.state, ended.attempts) == (JOB_STATE_SUCCEEDED, 0)


async def _busy_worker(daemon: Daemon, other_than: int) -> int:
    """The pid of one that has something to draw."""
    while True:
        for worker in (await daemon.status()).workers:
            if worker.state == WORKER_STATE_BUSY and worker.pid != other_than:
                return worker.pid


async def test_sigterm_lets_running_jobs_finish_and_keeps_the_rest(make_home: Callable[..., Home]) -> None:
    home = make_home(CRAFT_WORKER_MAX_ROWS="1")
    daemon = await start(home)
    jobs = [await daemon.create("[held]") for _ in range(4)]
    while (await daemon.status()).running < 2:  # the second is the one in store
        continue
    daemon.process.send_signal(signal.SIGTERM)
    await daemon.logged("draining")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await daemon.create()
    assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
    home.release()
    assert await daemon.process.wait() == 0  # it may be gone before anybody asks it how the jobs ended
    await daemon.channel.close()
    states = home.rows("SELECT state FROM jobs ORDER BY seq")
    assert states[0] == ("SUCCEEDED",) and states[3] == ("QUEUED",)
    async with running(home) as again:
        assert {(await again.finish(job.id)).state for job in jobs} == {JOB_STATE_SUCCEEDED}


async def test_a_second_signal_stops_at_once_and_costs_no_attempt(home: Home) -> None:
    daemon = await start(home)
    job = await daemon.create("[held]")
    await daemon.has_begun(job.id)
    daemon.process.send_signal(signal.SIGTERM)
    await daemon.logged("draining")
    assert await daemon.stop(signal.SIGTERM) == 0
    assert home.rows("SELECT state, attempts FROM jobs") == [("QUEUED", 0)]
    home.release()
    async with running(home) as again:
        assert (await again.finish(job.id)).state == JOB_STATE_SUCCEEDED


@pytest.mark.parametrize("is_hurried", [False, True])
async def test_only_a_stop_in_a_hurry_cuts_the_grace_of_the_first(home: Home, is_hurried: bool) -> None:
    async with running(home) as daemon:
        job = await daemon.create("[held]")
        await daemon.has_begun(job.id)
        await daemon.daemon.Shutdown(ShutdownRequest())
        await daemon.logged("draining")
        await daemon.daemon.Shutdown(ShutdownRequest(now=is_hurried, grace_s=0 if is_hurried else 0.001))
        if not is_hurried:
            daemon.process.send_signal(signal.SIGTERM)  # systemd's, after `craft daemon stop`
            home.release()
        assert await daemon.process.wait() == 0
    expected = ("QUEUED", 0) if is_hurried else ("SUCCEEDED", 0)
    assert home.rows("SELECT state, attempts FROM jobs") == [expected]


async def test_no_worker_outlives_its_daemon(home: Home) -> None:
    daemon = await start(home)
    job = await daemon.create("[held]")
    await daemon.has_begun(job.id)
    (worker,) = (await daemon.status()).workers
    watch = os.pidfd_open(worker.pid)
    try:
        await daemon.stop(signal.SIGKILL)
        ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(watch, ended.set)
        async with asyncio.timeout(HANG_S):
            await ended.wait()
        asyncio.get_running_loop().remove_reader(watch)
    finally:
        os.close(watch)


async def test_what_a_crash_left_in_the_images_folder_is_swept(home: Home) -> None:
    async with running(home) as daemon:
        job = await daemon.finish((await daemon.create()).id)
    folder = home.paths.images_dir
    for name in (".tmp-half.png", "orphan.png", "notes.txt"):
        (folder / name).write_text("left behind")
    async with running(home) as daemon:
        await daemon.logged("pictures that the database does not know")
        await daemon.finish((await daemon.create()).id)
        assert not (folder / ".tmp-half.png").exists()
        assert (folder / "notes.txt").exists() and (folder / f"{job.images[0].id}.png").exists()
        assert [path.name for path in (folder / "orphaned").iterdir()] == ["orphan.png"]


async def test_an_older_database_costs_nobody_a_picture(home: Home) -> None:
    """What the restore command that craft prints leads to where there is no backup."""
    async with running(home) as daemon:
        images = (await daemon.finish((await daemon.create(count=3)).id)).images
        drawn = {f"{image.id}.png": await daemon.file(image.id) for image in images}
        await daemon.stop()
    home.paths.database.rename(home.root / "damaged.db")
    orphaned = home.paths.images_dir / "orphaned"
    for told in ([f"3 pictures that the database does not know were moved to {orphaned}"], []):
        async with running(home) as daemon:
            await daemon.finish((await daemon.create()).id)
            while told and not (await daemon.status()).warnings:  # they are moved beside all else
                continue
            assert list((await daemon.status()).warnings) == told
            assert {path.name: path.read_bytes() for path in orphaned.iterdir()} == drawn
            await daemon.stop()
    assert home.log.count("pictures that the database does not know") == 1


@pytest.mark.parametrize("count", [3, 1])
async def test_a_picture_that_was_deleted_while_its_job_ran_is_not_drawn_again(
    make_home: Callable[..., Home], count: int
) -> None:
    home = make_home(CRAFT_WORKER_MAX_ROWS="1")
    async with running(home) as daemon:
        job = await daemon.create("a [held rest] cat", count=count + 1)
        image = await _first_image(daemon, job.id)
        await daemon.images.DeleteImage(images_pb2.DeleteImageRequest(id=image.id))
        await daemon.stop(signal.SIGKILL)
    home.release()
    async with running(home) as daemon:
        done = await daemon.finish(job.id)
        assert done.state == JOB_STATE_SUCCEEDED
        assert [one.index for one in done.images] == [n for n in range(count + 1) if n != image.index]
        assert home.rows("SELECT count(*) FROM removed_images") == [(1,)]
        await daemon.stop()
    async with running(home) as daemon:
        assert home.rows("SELECT count(*) FROM removed_images") == [(0,)]  # kept for unfinished jobs alone


async def test_a_job_whose_pictures_are_deleted_as_they_come_ends(make_home: Callable[..., Home]) -> None:
    async with running(make_home(CRAFT_WORKER_MAX_ROWS="1")) as daemon:
        job = await daemon.create("a [held rest] cat", count=2)
        image = await _first_image(daemon, job.id)
        await daemon.images.DeleteImage(images_pb2.DeleteImageRequest(id=image.id))
        daemon.home.release()
        done = await daemon.finish(job.id)
        assert done.state == JOB_STATE_SUCCEEDED


async def _first_image(daemon: Daemon, job_id: str) -> images_pb2.Image:
    """Of a job that goes on."""
    while not (job := await daemon.jobs.GetJob(jobs_pb2.GetJobRequest(id=job_id))).images:
        assert job.state != JOB_STATE_FAILED, job.error
    return job.images[0]


async def test_a_stale_socket_does_not_matter(home: Home) -> None:
    daemon = await start(home)
    await daemon.stop(signal.SIGKILL)
    assert home.paths.socket.is_socket()
    async with running(home) as again:
        assert (await again.status()).pid == again.process.pid


async def test_of_fifty_daemons_one_wins(home: Home) -> None:
    started = await asyncio.gather(*(spawn(home) for _ in range(50)))
    winners = [process for process, said in started if said.get("ready")]
    assert len(winners) == 1
    for process, said in started:
        if process is not winners[0]:
            stderr = (await process.communicate())[1].decode()
            assert process.returncode == 75 and stderr.startswith("craftd: ")
            assert f"pid {winners[0].pid}" in stderr and "Traceback" not in stderr
            assert said["error"]["reason"] == "ALREADY_RUNNING"  # type: ignore[index]
    daemon = Daemon(home, winners[0], f"unix:{home.paths.socket}")
    assert json.loads(home.paths.lock_file.read_text())["pid"] == winners[0].pid
    assert (await daemon.finish((await daemon.create()).id)).state == JOB_STATE_SUCCEEDED
    assert await daemon.stop() == 0
    assert not home.paths.socket.exists()


async def test_a_socket_that_is_not_ours_is_never_unlinked(home: Home) -> None:
    daemon = await start(home)
    home.paths.socket.unlink()
    home.paths.socket.write_text("another's")
    assert await daemon.stop() == 0
    assert home.paths.socket.read_text() == "another's"


async def test_a_live_socket_that_is_anothers_is_left_alone(home: Home) -> None:
    """Though nobody holds the data folder's lock."""
    path = home.paths.socket
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with socket.socket(socket.AF_UNIX) as another:
        another.bind(str(path))
        another.listen()
        inode = path.stat().st_ino
        process, said = await spawn(home)
        await process.communicate()
        assert (process.returncode, said["error"]["reason"]) == (75, "ALREADY_RUNNING")  # type: ignore[index]
        assert path.stat().st_ino == inode


async def test_an_image_that_cannot_be_written_waits_and_is_not_drawn_again(daemon: Daemon) -> None:
    folder = daemon.home.paths.images_dir
    folder.write_text("no folder")  # to root, who ignores permissions, a file in its place is the surest refusal
    job = await daemon.create()
    why = await daemon.waits_for(job.id, "could not be written")
    assert str(folder) in why and any(why in warning for warning in (await daemon.status()).warnings)
    folder.unlink()
    ended = await daemon.finish(job.id)
    assert (ended.state, len(ended.images)) == (JOB_STATE_SUCCEEDED, 1) and is_whole(
        await daemon.file(ended.images[0].id)
    )
    while (status := await daemon.status()).workers[0].predict_calls < job.generate.steps:  # told after the picture
        continue
    assert not status.warnings and status.workers[0].predict_calls == job.generate.steps


async def test_a_models_folder_that_is_gone_for_a_moment_costs_no_job(make_home: Callable[..., Home]) -> None:
    home = make_home(CRAFT_WORKER_MAX_ROWS="1")
    async with running(home) as daemon:
        jobs = [await daemon.create(f"{number} [held] [slow]", steps=8) for number in range(6)]
        await daemon.has_begun(jobs[0].id)
        aside = home.paths.models_dir.rename(home.root / "aside")
        home.release()
        why = await daemon.waits_for(jobs[-1].id, "flat")
        assert any(why in warning for warning in (await daemon.status()).warnings)
        aside.rename(home.paths.models_dir)
        assert {(await daemon.finish(job.id)).state for job in jobs} == {JOB_STATE_SUCCEEDED}
