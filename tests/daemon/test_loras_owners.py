"""LoRAs that are an owner's own: seen, counted, changed, shared, and kept as long as somebody has them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable
from dataclasses import asdict, replace
from pathlib import Path

import apsw
import pytest
from craft_protos.lora import LoraRef
from craft_protos.reasons import CraftError
from craft_protos.settings import Settings, TierSettings
from craftd.jobs import store as jobs
from craftd.jobs.job import Job
from craftd.keys.caller import ANYBODY, LOCAL, Caller, Role
from craftd.loras import table
from craftd.loras.files import LoraFiles
from craftd.loras.lora import Change, Lora, Upload, Wish
from craftd.loras.owning import LoraQuota
from craftd.loras.service import LoraService
from craftd.store import schema
from craftd.store.database import Database
from craftd.training import store as trainings

from tests.daemon.test_loras_service import chunks, inspect
from tests.daemon.test_training_lifecycle import SPEC
from tests.lora_files import POCKETS_WIDTH, kohya, numbers, write

ALICE, BOB = (Caller(name, Role.USER, name, "default") for name in ("alice", "bob"))
OPS = Caller("ops", Role.ADMIN, "ops")


@pytest.fixture
def service(database: Database, tmp_path: Path) -> LoraService:
    tiers = {"default": TierSettings(loras=2, lora_bytes=100_000)}
    return LoraService(database, LoraFiles(tmp_path / "loras"), inspect, quota=LoraQuota(Settings(tiers=tiers)))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return kohya(tmp_path / "cat.safetensors")


async def send(service: LoraService, file: Path, caller: Caller, name: str = "") -> Lora:
    data = await asyncio.to_thread(file.read_bytes)
    source = Upload(file.name, len(data), chunks(data))
    *_, made = [event async for event in service.add(source, Wish(name), caller)]
    assert isinstance(made, Lora)
    return made


def found(service: LoraService, text: str, caller: Caller) -> str:
    """The id of what it finds, or why it does not."""
    try:
        return service.find(text, caller).id
    except CraftError as exc:
        return exc.reason


async def why_not(attempt: Awaitable[object]) -> str:
    with pytest.raises(CraftError) as caught:
        await attempt
    return caught.value.reason


async def test_two_owners_have_the_same_name_and_the_same_file(service: LoraService, file: Path) -> None:
    alices, bobs = await send(service, file, ALICE), await send(service, file, BOB)
    assert alices.id != bobs.id and not alices.sha256.startswith((alices.id, bobs.id))  # neither id tells of the other
    assert alices.place.path == bobs.place.path and (await send(service, file, BOB)).id == bobs.id
    for text in ("cat", alices.sha256, alices.sha256[:8], "cat.safetensors"):
        assert (found(service, text, ALICE), found(service, text, BOB)) == (alices.id, bobs.id)
        assert (found(service, text, OPS), found(service, text, ANYBODY)) == ("AMBIGUOUS_ID", "UNKNOWN_LORA")
    assert found(service, alices.id, OPS) == alices.id and found(service, alices.id, BOB) == "UNKNOWN_LORA"
    assert [lora.owner for lora in service.list(LOCAL)] == ["alice", "bob"]
    await service.delete("cat", ALICE)
    assert bobs.place.path.is_file() and (await service.verified(bobs.id)).id == bobs.id
    await service.forget("bob")
    assert not bobs.place.path.exists() and not service.list(LOCAL)


async def test_what_is_unknown_to_a_caller_is_not_hinted_at(service: LoraService, file: Path) -> None:
    await send(service, file, ALICE, "secret-cat")
    with pytest.raises(CraftError) as caught:
        service.find("secret-cats", BOB)
    assert "secret-cat'" not in caught.value.hint
    with pytest.raises(CraftError, match="secret-cats") as caught:
        service.find("secret-cats", ALICE)
    assert "secret-cat'" in caught.value.hint


async def test_ones_own_is_meant_before_what_is_shared(service: LoraService, file: Path, tmp_path: Path) -> None:
    own = await send(service, file, ALICE)
    shared = await send(service, kohya(tmp_path / "cat2.safetensors", seed=3), OPS, "cat")
    assert shared.is_shared and not own.is_shared
    assert [found(service, "cat", who) for who in (ALICE, BOB, OPS)] == [own.id, shared.id, shared.id]
    assert service.names_for(ALICE) == service.names_for(LOCAL) == ["cat"]
    assert await why_not(send(service, kohya(tmp_path / "b.safetensors", seed=4), BOB, "cat")) == "NAME_TAKEN"


async def test_embeddings_of_others_do_not_work_in_a_prompt(service: LoraService, tmp_path: Path) -> None:
    path = write(
        tmp_path / "moody.safetensors", {"emb_params": ("F32", (2, POCKETS_WIDTH), numbers(2 * POCKETS_WIDTH))}
    )
    made = await send(service, path, ALICE)
    assert [[one.id for one in service.embeddings(who)] for who in ("alice", "bob", "local")] == [[made.id], [], []]


async def test_only_admins_share_and_only_they_change_what_is_shared(service: LoraService, file: Path) -> None:
    made = await send(service, file, ALICE)
    assert await why_not(service.update("cat", Change(is_shared=True), ALICE)) == "NOT_ALLOWED"
    assert await why_not(service.update("cat", Change(weight=0.5), BOB)) == "UNKNOWN_LORA"
    assert (await service.update("cat", Change(weight=0.5), ALICE)).weight == 0.5
    await service.update("cat", Change(is_shared=True), OPS)
    assert found(service, "cat", BOB) == made.id
    for who in (ALICE, BOB):
        assert await why_not(service.update("cat", Change(weight=0.1), who)) == "NOT_ALLOWED"
        assert await why_not(service.delete("cat", who)) == "NOT_ALLOWED"
    assert (await send(service, file, BOB)).id == made.id  # a file that is shared is not kept twice
    await service.update("cat", Change(is_shared=False), OPS)
    assert (found(service, "cat", BOB), found(service, "cat", ALICE)) == ("UNKNOWN_LORA", made.id)


async def test_a_name_and_a_file_are_shared_once(service: LoraService, file: Path, tmp_path: Path) -> None:
    shared = await send(service, file, OPS)
    other = await send(service, kohya(tmp_path / "dog.safetensors", seed=5), ALICE)
    await service.update(shared.id, Change(is_shared=False), OPS)
    same_name = await send(service, kohya(tmp_path / "x.safetensors", seed=6), BOB, "cat")
    same_file = await send(service, file, BOB, "copy")
    await service.update(shared.id, Change(is_shared=True), OPS)
    for one in (same_name, same_file):
        assert await why_not(service.update(one.id, Change(is_shared=True), OPS)) == "NAME_TAKEN"
    assert (await service.update(other.id, Change(is_shared=True), OPS)).is_shared


async def test_a_tier_says_how_many_and_how_large(service: LoraService, tmp_path: Path) -> None:
    files = [kohya(tmp_path / f"it{seed}.safetensors", seed=seed) for seed in range(3)]
    for file in files[:2]:
        await send(service, file, ALICE)
    assert await why_not(send(service, files[2], ALICE)) == "QUOTA_EXCEEDED"
    with pytest.raises(CraftError, match="2 LoRAs"):
        service.check_room(ALICE)
    await send(service, files[2], BOB)  # others have their own room
    await service.delete("it0", ALICE)
    large = kohya(tmp_path / "large.safetensors", rank=256)
    assert large.stat().st_size > 100_000
    assert await why_not(send(service, large, ALICE)) == "QUOTA_EXCEEDED"
    assert not list((tmp_path / "loras").glob(".incoming-*"))
    assert (await send(service, large, OPS)).is_shared


async def test_a_job_is_drawn_with_the_lora_that_it_was_accepted_with(service: LoraService, file: Path) -> None:
    alices, bobs = await send(service, file, ALICE), await send(service, file, BOB)
    assert service.of_job(LoraRef(bobs.id, 1.0, "cat", bobs.sha256), "bob").id == bobs.id
    assert service.of_job(LoraRef(alices.id, 1.0, "cat", alices.sha256), "local").id == alices.id  # an admin's job
    await service.delete(bobs.id, BOB)
    with pytest.raises(CraftError, match="no LoRA"):
        service.of_job(LoraRef(bobs.id, 1.0, "cat", bobs.sha256), "bob")


async def test_what_craft_made_is_its_owners_beyond_the_quota(service: LoraService, tmp_path: Path) -> None:
    for seed in range(3):
        await service.adopt(kohya(tmp_path / f"{seed}.safetensors", seed=seed), Wish("made", trigger="sks"), ALICE)
    assert [(one.name, one.owner, one.is_shared) for one in service.list(ALICE)] == [
        ("made", "alice", False),
        ("made-2", "alice", False),
        ("made-3", "alice", False),
    ]
    assert (await service.adopt(kohya(tmp_path / "9.safetensors", seed=9), Wish("ours"), LOCAL)).is_shared


async def test_a_training_that_an_admin_goes_on_with_stays_its_owners(database: Database) -> None:
    def fill(connection: apsw.Connection) -> None:
        for number, (owner, resumed) in enumerate((("ann", ""), ("ops", "t0"), ("ops", "t1"), ("ops", ""))):
            spec = replace(SPEC, resume=resumed, name=f"n{number}")
            jobs.insert(connection, Job(f"t{number}", owner, f"r{number}", "", spec, 0.0))

    await database.run(fill)
    owners = [await database.run(lambda one: trainings.first_owner(one, job_id)) for job_id in ("t0", "t1", "t2", "t3")]  # noqa: B023 - awaited at once
    assert owners == ["ann", "ann", "ann", "ops"]
    with pytest.raises(CraftError, match="job t0 trains"):
        await database.run(lambda one: trainings.check_name(one, "n0", "ann"))
    await database.run(lambda one: trainings.check_name(one, "n0", "bob"))  # whose name another's is, nobody hears


@pytest.fixture
async def earlier(tmp_path: Path) -> AsyncIterator[Path]:
    """A database of the version before LoRAs had owners, with one in it and how that fits."""
    path = tmp_path / "craft.db"
    connection = apsw.Connection(str(path))
    for migration in schema.migrations()[:15]:
        connection.execute(migration.sql)
    connection.pragma("user_version", 15)
    connection.pragma("application_id", schema._APPLICATION_ID)
    findings = asdict(await inspect(kohya(tmp_path / "old.safetensors")))
    connection.execute(
        "INSERT INTO loras VALUES (7, 'ab12cd34', 'old', 'ab12cd34ef', ?, 0, 'old.safetensors', '/old', 1, 2, 3, 0.5,"
        " 'sks', ?, 4.0, ?)",
        (str(tmp_path / "old.safetensors").encode(), json.dumps(findings), b"picture"),
    )
    connection.execute("INSERT INTO lora_fits VALUES ('ab12cd34ef', 'layout', '{}')")
    connection.close()
    yield path


async def test_the_loras_of_the_version_before_are_shared(earlier: Path) -> None:
    database = Database(earlier)
    try:
        (old,) = await database.run(table.every)
        assert (old.id, old.name, old.weight, old.trigger, old.create_time) == ("ab12cd34", "old", 0.5, "sks", 4.0)
        assert (old.owner, old.is_shared) == ("local", True)
        assert await database.run(lambda one: table.preview(one, old.id)) == b"picture"

        def fits(connection: apsw.Connection) -> int:
            return int(connection.execute("SELECT count(*) FROM lora_fits").get)

        assert await database.run(fits) == 1
        await database.run(lambda one: table.delete(one, old.id))
        assert await database.run(fits) == 0
    finally:
        await database.close()
