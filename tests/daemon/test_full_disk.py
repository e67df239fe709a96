"""A disk that is full in earnest: a tiny one is mounted for each test, where that is allowed."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc.aio
import pytest
from craft_protos.jobs_pb2 import JOB_STATE_SUCCEEDED

from tests.daemon.harness import Daemon, is_whole, reason, running
from tests.home import Home

CHUNK = 4096


@contextmanager
def mounted(folder: Path, size: str) -> Iterator[None]:
    """A file system of that size in memory."""
    folder.mkdir(parents=True, exist_ok=True)
    options = ["-t", "tmpfs", "-o", f"size={size}", "craft-test", str(folder)]
    try:
        done = subprocess.run(["mount", *options], capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if done.returncode:
        pytest.skip("mounting is not allowed here; test_store.py fills a disk by other means")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Leave no byte free; deleting the file frees them."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(b"x" * CHUNK):
                pass
        except OSError:
            return filler
    raise AssertionError("the disk did not fill")


def stored(home: Home) -> list[str]:
    """Pictures; what is being tried again at this moment is none yet."""
    names = (path.name for path in home.paths.images_dir.iterdir())
    return sorted(name for name in names if name != "filler" and not name.startswith(".tmp-"))


async def test_on_a_full_images_disk_jobs_wait_and_none_is_lost(home: Home) -> None:
    with mounted(home.paths.images_dir, "256k"):
        async with running(home) as daemon:
            before = await daemon.finish((await daemon.create()).id)
            filler = fill(home.paths.images_dir)
            jobs = [await daemon.create(count=3) for _ in range(3)]
            for job in jobs[:1]:
                assert "No space left" in await daemon.waits_for(job.id, "could not be written")
            assert stored(home) == [f"{before.images[0].id}.png"]
            filler.unlink()
            assert {(await daemon.finish(job.id)).state for job in jobs} == {JOB_STATE_SUCCEEDED}
            await _draws(daemon)


async def test_a_daemon_stops_though_its_disk_is_full_and_draws_at_the_next_start(
    make_home: Callable[..., Home],
) -> None:
    home = make_home(CRAFT_DAEMON_GRACE_S="1")
    with mounted(home.paths.images_dir, "256k"):
        async with running(home) as daemon:
            filler = fill(home.paths.images_dir)
            job = await daemon.create()
            await daemon.waits_for(job.id, "No space left")
            assert await daemon.stop(signal.SIGINT) == 0
        filler.unlink()
        async with running(home) as again:
            ended = await again.finish(job.id)
            assert (ended.state, ended.attempts) == (JOB_STATE_SUCCEEDED, 0)


async def test_a_full_data_disk_refuses_new_jobs_and_keeps_the_accepted_ones(make_home: Callable[..., Home]) -> None:
    home = make_home(CRAFT_DAEMON_GRACE_S="1")
    with mounted(home.paths.data_dir, "8m"):
        other = make_home()  # gives its model: the mount hides the first one's
        other.paths.models_dir.rename(home.root / "models")
        home.paths.models_dir.symlink_to(home.root / "models", target_is_directory=True)
        async with running(home) as daemon:
            held = await daemon.create("[held]")
            await daemon.has_begun(held.id)
            filler = fill(home.paths.data_dir)
            home.release()
            await daemon.waits_for(held.id, "No space left")
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                for _ in range(64):  # the log has some room of its own
                    await daemon.create("x" * 8000)
            assert reason(refused.value) == "DISK_FULL"
            assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            filler.unlink()
            assert (await daemon.finish(held.id)).state == JOB_STATE_SUCCEEDED
            await _draws(daemon)
            assert await daemon.stop() == 0
        async with running(home) as again:
            await _draws(again)


async def _draws(daemon: Daemon) -> None:
    job = await daemon.finish((await daemon.create()).id)
    assert job.state == JOB_STATE_SUCCEEDED
    assert is_whole(await daemon.file(job.images[0].id))
    assert f"{job.images[0].id}.png" in stored(daemon.home)
