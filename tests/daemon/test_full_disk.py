"""A disk that is full in earnest: a tiny one is mounted for each test, where that is allowed."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc.aio
import pytest
from craft_protos.jobs_pb2 import JOB_STATE_FAILED, JOB_STATE_SUCCEEDED
from craft_protos.reasons import REASONS

from tests.daemon.harness import Daemon, Home, is_whole, reason, running

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
    return sorted(path.name for path in home.paths.images_dir.iterdir() if path.name != "filler")


async def craft(home: Home, *arguments: str) -> tuple[int | None, str]:
    """(exit status, stderr) of the command."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "craft_cli.main", *arguments),
        env=home.env,
        cwd=home.root,
        stderr=asyncio.subprocess.PIPE,
    )
    stderr = (await process.communicate())[1]
    return process.returncode, stderr.decode()


async def test_a_full_images_disk_fails_the_job_and_nothing_else(home: Home) -> None:
    with mounted(home.paths.images_dir, "256k"):
        async with running(home) as daemon:
            before = await daemon.finish((await daemon.create()).id)
            filler = fill(home.paths.images_dir)
            code, stderr = await craft(home, "generate", "a red apple", "-o", "apple.png")
            assert code == REASONS["DISK_FULL"].exit == 74, stderr
            assert "No space left" in stderr and "Traceback" not in stderr
            job = await daemon.finish((await daemon.create(count=3)).id)
            assert (job.state, job.error.reason) == (JOB_STATE_FAILED, "DISK_FULL") and not job.images
            assert stored(home) == [f"{before.images[0].id}.png"]
            filler.unlink()
            await _draws(daemon)


async def test_a_full_data_disk_refuses_jobs_until_there_is_room(make_home: Callable[..., Home]) -> None:
    home = make_home()
    with mounted(home.paths.data_dir, "8m"):
        other = make_home()  # gives its model: the mount hides the first one's
        other.paths.models_dir.rename(home.root / "models")
        home.paths.models_dir.symlink_to(home.root / "models", target_is_directory=True)
        async with running(home) as daemon:
            held = await daemon.create("[held]")
            await daemon.see(held.id, "loading")
            filler = fill(home.paths.data_dir)
            home.release()
            await daemon.logged("not stored")
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                for _ in range(64):  # the log has some room of its own
                    await daemon.create("x" * 8000)
            assert reason(refused.value) == "DISK_FULL"
            assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            filler.unlink()
            assert (await daemon.finish(held.id)).error.reason == "DISK_FULL"
            await _draws(daemon)
            assert await daemon.stop() == 0
        async with running(home) as again:
            await _draws(again)


async def _draws(daemon: Daemon) -> None:
    job = await daemon.finish((await daemon.create()).id)
    assert job.state == JOB_STATE_SUCCEEDED
    assert is_whole(await daemon.file(job.images[0].id))
    assert f"{job.images[0].id}.png" in stored(daemon.home)
