"""Bounded for ever: what is done with is forgotten, what is needed stays, and it can be asked how much there is."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
from craft_protos import daemon_pb2, images_pb2, jobs_pb2
from craft_protos.config import find_paths
from craft_protos.reasons import CraftError
from craft_protos.settings import KeepSettings, LimitSettings, Settings
from craftd.inputs.service import InputService
from craftd.jobs.job import State
from craftd.store.contents import Contents
from craftd.store.room import Room
from craftd.upkeep.folders import Amount
from craftd.upkeep.service import Upkeep
from craftd.workers.pictures import PictureFindings

from tests.daemon import trains
from tests.daemon.harness import Daemon, field, reason, running
from tests.daemon.test_full_disk import fill, mounted
from tests.daemon.test_retention import DAY_S, NOW, Album
from tests.home import Home


async def _nothing(_: Sequence[Path]) -> AsyncIterator[PictureFindings]:
    return
    yield


class Trainings:
    """As much of the trainings as upkeep asks."""

    class files:
        removed: list[str] = []  # noqa: RUF012 - one of a test

        @classmethod
        def remove_all_samples(cls, job_id: str) -> bool:
            cls.removed.append(job_id)
            return True


@pytest.fixture
async def album(tmp_path: Path) -> AsyncIterator[Album]:
    made = Album(tmp_path)
    yield made
    await made.database.close()


def upkeep(album: Album, *, is_idle: bool = True, **keep: Any) -> Upkeep:
    from craft_protos.settings import ImageSettings
    from craftd.images.retention import Retention

    paths = find_paths({"CRAFT_DATA_DIR": str(album.folder), "CRAFT_STATE_DIR": str(album.folder / "state")})
    retention = Retention(album.database, album.files, ImageSettings(), lambda: NOW)
    trainings: Any = Trainings()
    return Upkeep(
        database=album.database,
        retention=retention,
        trainings=trainings,
        inputs=InputService(album.database, Contents(paths.inputs_dir, "inputs"), _nothing, LimitSettings()),
        room=Room(paths.room_file),
        is_idle=lambda: is_idle,
        paths=paths,
        settings=Settings(keep=KeepSettings(**keep)),
        now=lambda: NOW,
    )


async def _ended(album: Album, days: float, state: State = State.SUCCEEDED) -> str:
    job_id = await album.job(state)
    ended = NOW - days * DAY_S

    def age(connection: Any) -> None:
        connection.execute("UPDATE jobs SET create_time = ?, finish_time = ? WHERE id = ?", (ended, ended, job_id))

    await album.database.run(age)
    return job_id


async def _jobs(album: Album) -> set[str]:
    return {row[0] for row in await album.database.look(lambda c: c.execute("SELECT id FROM jobs").fetchall())}


async def test_old_jobs_without_pictures_are_forgotten(album: Album) -> None:
    for state in (State.SUCCEEDED, State.FAILED, State.CANCELLED):
        await _ended(album, 91, state)
    young, pictured = await _ended(album, 89), await _ended(album, 400)
    waiting, runs = await _ended(album, 400, State.QUEUED), await _ended(album, 400, State.RUNNING)
    await album.picture(pictured, 400)
    await upkeep(album).sweep()
    assert await _jobs(album) == {young, pictured, waiting, runs}
    await upkeep(album, jobs_days=0).sweep()
    assert await _jobs(album) == {young, pictured, waiting, runs}


async def test_beyond_a_number_the_oldest_go(album: Album) -> None:
    jobs = [await _ended(album, 50 - n / 1000) for n in range(2100)]
    fresh = await _ended(album, 0)
    await album.picture(jobs[0], 50)
    await upkeep(album, jobs_most=20).sweep()
    left = await _jobs(album)
    assert len(left) == 20 and left >= {jobs[0], fresh, jobs[-1]} and jobs[1] not in left


async def test_orphaned_files_go_after_their_time(album: Album, tmp_path: Path) -> None:
    for folder in ("images", "loras"):
        place = tmp_path / folder / "orphaned"
        place.mkdir(parents=True)
        for name, days in (("old", 31), ("young", 29)):
            (place / name).write_bytes(b"x" * 10)
            os.utime(place / name, (NOW - days * DAY_S,) * 2)
    kept = upkeep(album)
    assert await kept.prune(("orphans",), 30 * DAY_S, dry_run=True) == {"orphans": Amount(2, 20)}
    await kept.sweep()
    left = [os.listdir(tmp_path / folder / "orphaned") for folder in ("images", "loras")]  # noqa: PTH208
    assert left == [["young"], ["young"]]


async def test_pruning_says_first_what_it_will_remove(album: Album) -> None:
    job = await album.job()
    for days in (10, 20):
        await album.picture(job, days)
    empty = await _ended(album, 15)
    kept = upkeep(album)
    planned = await kept.prune(("pictures", "jobs"), 12 * DAY_S, dry_run=True)
    assert planned == {"pictures": Amount(1, 1 << 20), "jobs": Amount(1, 0)}
    assert empty in await _jobs(album) and len(await album.rows()) == 2
    assert await kept.prune(("pictures", "jobs"), 12 * DAY_S, dry_run=False) == planned
    assert empty not in await _jobs(album) and len(await album.rows()) == 1
    with pytest.raises(CraftError, match="nothing that is kept"):
        await kept.prune(("models",), 0, dry_run=True)


async def test_the_database_gives_back_what_it_does_not_use(album: Album, tmp_path: Path) -> None:
    def blow_up(connection: Any) -> None:
        connection.execute("CREATE TABLE big (x)")
        connection.executemany("INSERT INTO big VALUES (zeroblob(1000000))", [()] * 50)

    await album.database.run(blow_up)
    await upkeep(album).sweep()
    assert (tmp_path / "craft.db").stat().st_size + (tmp_path / "craft.db-wal").stat().st_size > 50_000_000
    job = await _ended(album, 1)
    await album.database.run(lambda connection: connection.execute("DROP TABLE big"))
    await upkeep(album, is_idle=False).sweep()
    assert await album.database.look(lambda c: c.pragma("freelist_count")) != 0  # not while somebody draws
    vacuumed, work = await asyncio.gather(
        album.database.vacuum(), album.database.run(lambda connection: connection.execute("SELECT 1").get)
    )
    assert (vacuumed, work) == (True, 1)
    assert (tmp_path / "craft.db").stat().st_size + (tmp_path / "craft.db-wal").stat().st_size < 5_000_000
    assert job in await _jobs(album) and not await album.database.vacuum()


def test_room_is_made_given_and_made_again(tmp_path: Path) -> None:
    room = Room(tmp_path / "room", 1 << 20)
    assert room.keep() and (tmp_path / "room").stat().st_blocks * 512 >= 1 << 20
    room.give()
    room.give()
    assert not (tmp_path / "room").exists()
    assert room.keep() and room.keep()


async def test_on_a_full_disk_pictures_can_be_deleted(home: Home) -> None:
    with mounted(home.paths.data_dir, "24m"):
        from tests.home import MODEL, write_model

        write_model(home.paths.models_dir / MODEL)
        async with running(home) as daemon:
            images = [(await daemon.finish((await daemon.create()).id)).images[0] for _ in range(8)]
            filler = fill(home.paths.data_dir)
            for image in images:
                await daemon.images.DeleteImage(images_pb2.DeleteImageRequest(id=image.id))
            listed = await daemon.images.ListImages(images_pb2.ListImagesRequest())
            assert not listed.images
            filler.unlink()


async def test_df_tells_and_prune_removes(daemon: Daemon) -> None:
    done = await daemon.finish((await daemon.create(count=2)).id)
    usage = await daemon.daemon.GetDiskUsage(daemon_pb2.GetDiskUsageRequest())
    held = {one.what: one for one in usage.held}
    assert list(held) == ["pictures", "jobs", "data", "inputs", "checkpoints", "orphans", "loras", "logs"]
    assert (held["pictures"].count, held["pictures"].rule) == (2, "up to 50 GiB")
    assert held["pictures"].bytes == sum(image.size_bytes for image in done.images)
    assert held["jobs"].count == 1 and "90 days, 200,000 at most" in held["jobs"].rule
    assert 0 < usage.free_bytes < usage.total_bytes
    asked = daemon_pb2.PruneRequest(what=["pictures", "jobs"], older_than_s=0)
    pruned = await daemon.daemon.Prune(asked)
    assert [(one.what, one.count) for one in pruned.pruned] == [("pictures", 0), ("jobs", 0)]  # too young
    for wrong, named in (({"what": ["models"]}, "what"), ({"older_than_s": float("nan")}, "older_than_s")):
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await daemon.daemon.Prune(daemon_pb2.PruneRequest(**wrong))  # type: ignore[arg-type]
        assert (reason(refusal.value), field(refusal.value)) == ("INVALID_FIELD", named)


async def test_data_of_trainings_is_pruned_but_not_what_one_needs(daemon: Daemon) -> None:
    job = await trains.train(daemon, name="cat", trigger="sks cat")
    done = await daemon.finish(job.id)
    assert done.state == jobs_pb2.JOB_STATE_SUCCEEDED, done.error
    before = {one.what: one for one in (await daemon.daemon.GetDiskUsage(daemon_pb2.GetDiskUsageRequest())).held}
    assert before["data"].count > 0
    asked = daemon_pb2.PruneRequest(what=["data", "checkpoints"], older_than_s=0, dry_run=True)
    planned = {one.what: one for one in (await daemon.daemon.Prune(asked)).pruned}
    assert planned["data"].count == before["data"].count and planned["data"].bytes == before["data"].bytes
    asked.dry_run = False
    gone = {one.what: one.count for one in (await daemon.daemon.Prune(asked)).pruned}
    after = {one.what: one for one in (await daemon.daemon.GetDiskUsage(daemon_pb2.GetDiskUsageRequest())).held}
    assert gone["data"] == before["data"].count and after["data"].count == 0
