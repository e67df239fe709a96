"""The store under trouble: work that fails, disks that are full, backups. (test_durability.py: power failures.)"""

from __future__ import annotations

import asyncio
import errno
import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import apsw
import pytest
from craft_protos.generate import GenerateSpec
from craft_protos.reasons import CraftError
from craftd import serve
from craftd.images.files import ImageFiles
from craftd.jobs import store as jobs
from craftd.store import schema
from craftd.store.database import Database

from tests.home import HANG_S

SPEC = GenerateSpec("an apple", "", "flat", 64, 64, 1, 1.0, 0, 1, "Euler", "png", False, ())


def _insert(number: int):  # type: ignore[no-untyped-def]
    def work(connection: apsw.Connection) -> None:
        connection.execute("INSERT INTO meta VALUES (?, 'kept')", (f"n{number}",))

    return work


async def test_work_that_fails_takes_no_other_along(tmp_path: Path) -> None:
    database = Database(tmp_path / "craft.db")
    jobs = [database.run(_insert(1)), database.run(_insert(1)), database.run(_insert(2))]
    results = await asyncio.gather(*jobs, return_exceptions=True)
    assert [result is None for result in results] == [True, False, True]
    assert isinstance(results[1], CraftError)
    await database.close()


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[tuple[ImageFiles, list[int]]]:
    """Files whose writer takes so many bytes, then says ENOSPC."""
    room = [10]

    def write(descriptor: int, data: memoryview) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken = os.write(descriptor, data[: room[0]])
        room[0] -= taken
        return taken

    yield ImageFiles(tmp_path / "images", write), room


def test_a_full_disk_leaves_no_torn_file_and_recovers(full_disk: tuple[ImageFiles, list[int]], tmp_path: Path) -> None:
    files, room = full_disk
    with pytest.raises(CraftError) as refused:
        files.save("a.png", b"x" * 100)
    assert refused.value.reason == "DISK_FULL" and refused.value.exit_code == 74
    assert not list((tmp_path / "images").iterdir())
    room[0] = 1000
    files.save("a.png", b"x" * 100)
    assert b"".join(files.chunks("a.png")) == b"x" * 100


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ENOSPC, "DISK_FULL"),
        (errno.EDQUOT, "DISK_FULL"),
        (errno.EFBIG, "DISK_FULL"),
        (errno.EIO, "STORAGE_FAILED"),
        (errno.EROFS, "STORAGE_FAILED"),
        (errno.EACCES, "STORAGE_FAILED"),
    ],
)
def test_only_a_full_disk_is_called_full(tmp_path: Path, number: int, reason: str) -> None:
    def write(descriptor: int, data: memoryview) -> int:
        raise OSError(number, os.strerror(number))

    with pytest.raises(CraftError, match=os.strerror(number)) as refused:
        ImageFiles(tmp_path, write).save("a.png", b"x")
    assert (refused.value.reason, refused.value.exit_code) == (reason, 74)
    assert ("free some space" in refused.value.hint) is (reason == "DISK_FULL")
    assert not list(tmp_path.iterdir())


class Observed(Database):
    """Says when a backup has been made."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.backups = asyncio.Semaphore(0)

    async def backup(self) -> None:
        await super().backup()
        self.backups.release()


async def test_a_backup_is_made_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "_BACKUP_EVERY_S", 0.001)  # a day
    database = Observed(tmp_path / "craft.db")
    backing_up = asyncio.create_task(serve._back_up(database))
    async with asyncio.timeout(HANG_S):
        await database.backups.acquire()
        await database.run(_insert(1))
        for _ in range(2):  # one may have begun before
            await database.backups.acquire()
    backing_up.cancel()
    await asyncio.gather(backing_up, return_exceptions=True)
    await database.close()
    assert _keys(tmp_path / "craft.db.bak") == ["n1"]


async def test_a_backup_that_fails_costs_neither_the_daemon_nor_the_one_before(tmp_path: Path) -> None:
    database = Database(tmp_path / "craft.db")
    await database.run(_insert(1))
    await database.backup()
    (tmp_path / "craft.db.bak.tmp").mkdir()  # in its way
    await database.run(_insert(2))
    await database.backup()
    await database.run(_insert(3))
    await database.close()
    assert _keys(tmp_path / "craft.db.bak") == ["n1"]


@pytest.mark.parametrize("version", range(1, len(schema.migrations())))
async def test_an_earlier_crafts_database_is_brought_up_with_all_that_is_in_it(tmp_path: Path, version: int) -> None:
    path = tmp_path / "craft.db"
    connection = apsw.Connection(str(path))
    for migration in schema.migrations()[:version]:
        connection.execute(migration.sql)
    connection.pragma("user_version", version)
    connection.pragma("application_id", schema._APPLICATION_ID)
    for number, state in enumerate(("QUEUED", "RUNNING", "SUCCEEDED")):
        connection.execute(
            "INSERT INTO jobs (id, owner, request_id, body_sha256, state, kind, spec, priority, lease, create_time)"
            " VALUES (?, 'local', ?, 'body', ?, 'generate', ?, 0, 0, 1.0)",
            (f"j{number}", f"r{number}", state, json.dumps(asdict(SPEC))),
        )
    connection.close()
    database = Database(path)
    try:
        views = await database.run(jobs.resume)
        assert [(view.job.id, view.job.state, view.job.drawing) for view in views] == [
            ("j0", jobs.State.QUEUED, SPEC),
            ("j1", jobs.State.QUEUED, SPEC),
        ]
        assert (await database.look(lambda one: jobs.view(one, "j2"))).job.state is jobs.State.SUCCEEDED
        assert await database.look(schema.user_version) == schema.migrations()[-1].number
        assert await database.look(lambda one: one.pragma("integrity_check")) == "ok"
    finally:
        await database.close()


def test_migrations_are_numbered_without_a_gap() -> None:
    assert [one.number for one in schema.migrations()] == list(range(1, len(schema.migrations()) + 1))


def _keys(path: Path) -> list[str]:
    connection = apsw.Connection(str(path))
    try:
        return [str(key) for (key,) in connection.execute("SELECT key FROM meta WHERE value = 'kept' ORDER BY key")]
    finally:
        connection.close()
