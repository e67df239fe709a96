"""Old pictures: which go, which stay, and what a crash in between leaves."""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import apsw
import pytest
from craft_protos.generate import GenerateSpec
from craft_protos.settings import ImageSettings
from craftd.images import table as images
from craftd.images.files import ImageFiles
from craftd.images.image import Image
from craftd.images.retention import Retention
from craftd.jobs import store as jobs
from craftd.jobs.job import Job, State
from craftd.store.database import Database

from tests.daemon.harness import running
from tests.home import HANG_S, Home

DAY_S = 86400.0
NOW = 2_000_000_000.0
MIB = 1 << 20
SPEC = GenerateSpec("a", "", "flat", 64, 64, 3, 1.0, 0, 9, "Euler", "png", False, ())
_numbers = itertools.count()


class Album:
    """A database and an images folder with pictures in them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.database = Database(folder / "craft.db")
        self.files = ImageFiles(folder / "images")

    async def job(self, state: State = State.SUCCEEDED) -> str:
        job_id = f"j{next(_numbers)}"
        made = Job(job_id, "local", job_id, "", SPEC, NOW, state=state)
        await self.database.run(lambda connection: jobs.insert(connection, made))
        return job_id

    async def picture(self, job_id: str, age_days: float, size: int = MIB) -> str:
        image_id = f"m{next(_numbers)}"
        data = bytes(size)
        image = Image(
            *(image_id, job_id, next(_numbers), 0, "", "image/png", 64, 64, size, NOW - age_days * DAY_S),
            *("flat", "a", "{}"),
        )
        await asyncio.to_thread(self.files.save, image.file_name, data)
        await self.database.run(lambda connection: images.insert(connection, image))
        return image_id

    async def sweep(self, files: ImageFiles | None = None, **settings: float) -> int:
        return await Retention(self.database, files or self.files, ImageSettings(**settings), lambda: NOW).sweep()

    async def rows(self) -> set[str]:
        def work(connection: apsw.Connection) -> set[str]:
            return {row[0] for row in connection.execute("SELECT id FROM images")}

        return await self.database.run(work)

    @property
    def on_disk(self) -> set[str]:
        return {path.stem for path in (self.folder / "images").iterdir()}


@pytest.fixture
async def album(tmp_path: Path) -> AsyncIterator[Album]:
    made = Album(tmp_path)
    yield made
    await made.database.close()


async def test_older_ones_go_row_and_file(album: Album) -> None:
    job = await album.job()
    old, older, young = [await album.picture(job, age) for age in (8, 30, 6)]
    assert await album.sweep(keep_days=7) == 2
    assert await album.rows() == album.on_disk == {young}
    assert not {old, older} & album.on_disk
    assert await album.sweep(keep_days=7) == 0


async def test_beyond_a_size_the_oldest_go_and_no_more_than_needed(album: Album) -> None:
    job = await album.job()
    newest, oldest, middle = [await album.picture(job, age) for age in (1, 3, 2)]
    assert await album.sweep(max_gib=2.5 / 1024) == 1
    assert await album.rows() == album.on_disk == {newest, middle}
    assert oldest not in album.on_disk
    assert await album.sweep(max_gib=2.0 / 1024) == 0


async def test_many_go_in_portions(album: Album) -> None:
    job = await album.job()
    for age in range(230):
        await album.picture(job, 1 + age, size=1024)
    assert await album.sweep(max_gib=5 / MIB) == 225
    assert len(await album.rows()) == len(album.on_disk) == 5


@pytest.mark.parametrize("state", [State.QUEUED, State.RUNNING])
async def test_pictures_of_an_unfinished_job_stay(album: Album, state: State) -> None:
    needed = [await album.picture(await album.job(state), age) for age in (9, 8)]
    gone = await album.picture(await album.job(), 7)
    assert await album.sweep(keep_days=1, max_gib=1 / MIB) == 1
    assert await album.rows() == album.on_disk == set(needed)
    assert gone not in album.on_disk


async def test_one_that_may_still_be_fetched_stays(album: Album) -> None:
    fresh = await album.picture(await album.job(), 1 / DAY_S)
    assert await album.sweep(keep_days=1 / DAY_S / 2, max_gib=1 / MIB) == 0
    assert await album.rows() == {fresh}


async def test_nothing_goes_where_nothing_is_asked_for(album: Album) -> None:
    await album.picture(await album.job(), 9999)
    assert await album.sweep() == 0
    await asyncio.wait_for(Retention(album.database, album.files, ImageSettings(max_gib=0)).run(), HANG_S)


class Stubborn(ImageFiles):
    """Files that the system does not let go of."""

    def delete(self, name: str) -> bool:
        return False


async def test_a_file_that_cannot_be_deleted_keeps_its_row_and_others_still_go(album: Album, tmp_path: Path) -> None:
    job = await album.job()
    kept = await album.picture(job, 5)
    assert await album.sweep(Stubborn(tmp_path / "images"), keep_days=1) == 0
    assert await album.rows() == album.on_disk == {kept}
    assert await album.sweep(keep_days=1) == 1
    assert await album.rows() == album.on_disk == set()


def test_what_cannot_be_unlinked_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = ImageFiles(tmp_path / "images")
    files.save("a.png", b"x")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", refuse)
        assert not files.delete("a.png")
    assert files.delete("a.png") and files.delete("a.png")


KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from craft_protos.settings import ImageSettings
from craftd.images.files import ImageFiles
from craftd.images.retention import Retention
from craftd.store.database import Database

class Killed(ImageFiles):
    left = 3
    def delete(self, name):
        super().delete(name)
        self.left -= 1
        if not self.left:
            os.kill(os.getpid(), signal.SIGKILL)
        return True

async def main(folder):
    database = Database(folder / "craft.db")
    await Retention(database, Killed(folder / "images"), ImageSettings(keep_days=1), lambda: 2e9).sweep()

asyncio.run(main(Path(sys.argv[1])))
"""


async def test_killed_in_the_middle_it_ends_its_work_the_next_time(tmp_path: Path) -> None:
    album = Album(tmp_path)
    job = await album.job()
    made = {await album.picture(job, 5, size=10) for _ in range(6)}
    await album.database.close()
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", KILLED, str(tmp_path))
    assert await process.wait() == -signal.SIGKILL
    again = Album(tmp_path)
    try:
        assert len(again.on_disk) == 3 and await again.rows() == made, "files go first, so no file is without a row"
        assert await again.sweep(keep_days=1) == 6
        assert await again.rows() == again.on_disk == set()
    finally:
        await again.database.close()


async def test_the_daemon_sweeps_when_it_is_told_to(make_home: Callable[..., Home]) -> None:
    home = make_home()
    async with running(home) as daemon:
        job = await daemon.finish((await daemon.create()).id)
        await daemon.stop()
    home.rows("UPDATE images SET create_time = create_time - 3 * 86400")
    home.env["CRAFT_IMAGES_KEEP_DAYS"] = "2"
    async with running(home) as daemon:
        assert (await daemon.logged("swept old pictures"))["pictures"] == 1
        assert job.images and not list(home.paths.images_dir.glob("*.png"))
        young = await daemon.finish((await daemon.create()).id)
        assert await daemon.file(young.images[0].id)
