"""kill -9, hangs, poison: every accepted job ends once, no image is torn or doubled."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
from collections.abc import Callable

import grpc
import grpc.aio
import pytest
from craft_protos import jobs_pb2
from craft_protos.daemon_pb2 import ShutdownRequest
from craft_protos.jobs_pb2 import JOB_STATE_FAILED, JOB_STATE_SUCCEEDED

from tests.daemon.harness import Daemon, Home, is_whole, request, running, spawn, start

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
    await daemon.see(mates[0].id, "loading")
    daemon.home.release()
    ended = await daemon.finish(poison.id)
    assert (ended.state, ended.error.reason, ended.attempts) == (JOB_STATE_FAILED, "WORKER_DIED", 3)
    assert "SIGKILL" in ended.error.message
    finished = [await daemon.finish(mate.id) for mate in mates]
    assert [(mate.state, mate.attempts) for mate in finished] == [(JOB_STATE_SUCCEEDED, 0)] * 3


async def test_a_job_that_killed_its_worker_once_is_drawn(daemon: Daemon) -> None:
    job = await daemon.finish((await daemon.create("[crash once]")).id)
    assert (job.state, job.attempts, len(job.images)) == (JOB_STATE_SUCCEEDED, 1, 1)


async def test_a_worker_that_hangs_is_replaced(make_home: Callable[..., Home]) -> None:
    home = make_home(CRAFT_WORKER_STALL_TIMEOUT_S="0.3")
    async with running(home) as daemon:
        job = await daemon.finish((await daemon.create("[hang]")).id)
        assert (job.error.reason, job.attempts) == ("WORKER_DIED", 3) and "no progress" in job.error.message
        assert (await daemon.finish((await daemon.create()).id)).state == JOB_STATE_SUCCEEDED


async def test_a_worker_that_cannot_start_fails_the_job_and_says_why(make_home: Callable[..., Home]) -> None:
    async with running(make_home(CRAFT_WORKER_MODULE="craftd.nowhere")) as daemon:
        job = await daemon.finish((await daemon.create()).id)
        assert job.state == JOB_STATE_FAILED and "No module named craftd.nowhere" in job.error.message


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
    await daemon.see(job.id, "loading")
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
        await daemon.see(job.id, "loading")
        await daemon.daemon.Shutdown(ShutdownRequest())
        await daemon.logged("draining")
        await daemon.daemon.Shutdown(ShutdownRequest(now=is_hurried, grace_s=0 if is_hurried else 0.001))
        if not is_hurried:
            daemon.process.send_signal(signal.SIGTERM)  # systemd's, after `craft daemon stop`
            home.release()
            assert (await daemon.finish(job.id)).state == JOB_STATE_SUCCEEDED
        assert await daemon.process.wait() == 0
    expected = ("QUEUED", 0) if is_hurried else ("SUCCEEDED", 0)
    assert home.rows("SELECT state, attempts FROM jobs") == [expected]


async def test_no_worker_outlives_its_daemon(home: Home) -> None:
    daemon = await start(home)
    job = await daemon.create("[held]")
    await daemon.see(job.id, "loading")
    (worker,) = (await daemon.status()).workers
    watch = os.pidfd_open(worker.pid)
    try:
        await daemon.stop(signal.SIGKILL)
        ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(watch, ended.set)
        async with asyncio.timeout(20):
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
        await daemon.finish((await daemon.create()).id)  # nothing is drawn before the sweep is over
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
            assert list((await daemon.status()).warnings) == told
            assert {path.name: path.read_bytes() for path in orphaned.iterdir()} == drawn
            await daemon.stop()
    assert home.log.count("pictures that the database does not know") == 1


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


async def test_an_image_that_cannot_be_written_fails_its_job_alone(daemon: Daemon) -> None:
    folder = daemon.home.paths.images_dir
    folder.write_text("no folder")  # to root, who ignores permissions, a file in its place is the surest refusal
    job = await daemon.finish((await daemon.create()).id)
    assert (job.state, job.error.reason) == (JOB_STATE_FAILED, "STORAGE_FAILED") and not job.images
    assert str(folder) in job.error.message and "free" not in job.error.hint
    folder.unlink()
    assert (await daemon.finish((await daemon.create()).id)).state == JOB_STATE_SUCCEEDED
