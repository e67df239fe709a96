"""Whose jobs and images are whose, down to the beginning of an id."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import apsw
import pytest
from craft_protos.api_key import ALPHABET
from craft_protos.generate import GenerateRequest, GenerateSpec
from craft_protos.job_request import JobRequest
from craft_protos.reasons import CraftError
from craftd.images import table as images
from craftd.images.files import ImageFiles
from craftd.images.image import Image
from craftd.images.service import ImageService
from craftd.jobs import store as jobs
from craftd.jobs.job import Job, body_sha256
from craftd.store import ids
from craftd.store.database import Database

SPEC = GenerateSpec("an apple", "", "flat", 64, 64, 1, 1.0, 7, 1, "Euler", "png", False, ())


def job(job_id: str, owner: str, *, public: bool = False) -> Job:
    return Job(job_id, owner, f"request-{job_id}", "", SPEC, 0.0, public=public)


def image(image_id: str, job_id: str) -> Image:
    return Image(image_id, job_id, 0, 7, "", "image/png", 64, 64, 1, 0.0, "flat", "an apple", "{}")


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    """alice and bob have a job and an image each; bob's are public, and their ids begin as alice's do."""
    opened = Database(tmp_path / "craft.db")

    def fill(connection: apsw.Connection) -> None:
        for job_id, image_id, owner in (("aab1", "xxy1", "alice"), ("aab2", "xxy2", "bob")):
            jobs.insert(connection, job(job_id, owner, public=owner == "bob"))
            images.insert(connection, image(image_id, job_id))

    await opened.run(fill)
    yield opened
    await opened.close()


async def found(database: Database, work: Callable[[apsw.Connection], str]) -> str:
    """What it finds, or why it does not."""
    try:
        return await database.run(work)
    except CraftError as exc:
        return exc.reason


@pytest.mark.parametrize(
    ("prefix", "owner", "expected"),
    [
        ("aab1", "alice", "aab1"),
        ("aab2", "alice", "UNKNOWN_JOB"),
        ("a", "alice", "aab1"),  # no ambiguity tells of bob's
        ("a", "bob", "aab2"),
        ("a", "carol", "UNKNOWN_JOB"),
        ("a", "", "AMBIGUOUS_ID"),
        ("aab2", "", "aab2"),
    ],
)
async def test_a_beginning_is_one_of_ones_own(database: Database, prefix: str, owner: str, expected: str) -> None:
    image_prefix = prefix.replace("aab", "xxy").replace("a", "x")
    assert await found(database, lambda connection: jobs.view(connection, prefix, owner).job.id) == expected
    found_image = await found(database, lambda connection: images.find(connection, image_prefix, owner).id)
    assert found_image == expected.replace("aab", "xxy").replace("JOB", "IMAGE")


async def test_lists_are_of_ones_own(database: Database) -> None:
    def listed(connection: apsw.Connection, owner: str) -> tuple[list[str], list[str]]:
        own_jobs = [view.job.id for _, view in jobs.newest(connection, 10, None, (), owner)]
        return own_jobs, [one.id for _, one in images.newest(connection, 10, None, "", owner)]

    assert await database.run(lambda connection: listed(connection, "alice")) == (["aab1"], ["xxy1"])
    assert await database.run(lambda connection: listed(connection, "carol")) == ([], [])
    assert await database.run(lambda connection: listed(connection, "")) == (["aab2", "aab1"], ["xxy2", "xxy1"])


async def test_another_ones_job_has_no_images(database: Database) -> None:
    service = ImageService(database, ImageFiles(Path()))
    assert await service.list(10, "", "aab2", "alice") == []
    assert [one.id for _, one in await service.list(10, "", "aab2", "bob")] == ["xxy2"]
    with pytest.raises(CraftError, match="no image has the id"):
        await service.delete("xxy2", "alice")


async def test_public_images_are_found_by_their_whole_id_alone(database: Database) -> None:
    service = ImageService(database, ImageFiles(Path()))
    assert (await service.public("xxy2")).id == "xxy2"
    for not_public in ("xxy1", "xxy", "x", "", "xxy2 ", "%", "xxy2' OR 1"):
        with pytest.raises(CraftError) as caught:
            await service.public(not_public)
        assert caught.value.reason == "UNKNOWN_IMAGE"


def test_ids_of_images_cannot_be_guessed() -> None:
    assert len(ids.new_image_id()) * 5 >= 128
    assert len({ids.new_image_id() for _ in range(1000)}) == 1000
    assert set("".join(ids.new_image_id() for _ in range(1000))) == set(ALPHABET)


def test_a_public_request_is_another_body() -> None:
    private, public = (JobRequest("r", GenerateRequest("x"), public=public) for public in (False, True))
    assert body_sha256(private) != body_sha256(public)


async def test_an_owners_list_does_not_read_through_everybodys(database: Database) -> None:
    """By the index of owners, however many images others have."""

    def plan(connection: apsw.Connection) -> str:
        seen: list[str] = []
        connection.exec_trace = lambda cursor, sql, bindings: seen.append(sql) is None
        images.newest(connection, 10, None, "", "alice")
        connection.exec_trace = None
        rows = connection.execute(f"EXPLAIN QUERY PLAN {seen[0]}", (None, "", 10, "alice")).fetchall()
        return "\n".join(str(row[-1]) for row in rows)

    told = await database.run(plan)
    assert "SCAN images" not in told and "jobs_by_owner" in told, told
