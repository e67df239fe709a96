"""What the bot needs of keys: made so that the call can be repeated, lapsing, used for their owners, forgotten."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc.aio
import pytest
from craft_protos import api_key, daemon_pb2, daemon_pb2_grpc, jobs_pb2, jobs_pb2_grpc, keys_pb2, keys_pb2_grpc
from craftd.keys.caller import Role
from craftd.keys.key import State
from craftd.keys.service import KeyService
from craftd.store.database import Database

from tests.daemon.harness import Daemon, reason, request, running, within_a_minute
from tests.daemon.test_keys import PEER, opened, refused, refused_later
from tests.home import Home

OWNER = "telegram:1"


@pytest.fixture
async def service(database: Database) -> KeyService:
    return await opened(database)


async def test_a_key_of_the_callers_own(service: KeyService, database: Database) -> None:
    """The same call again is answered as the first was, after a restart, too."""
    own = api_key.new()
    made = await service.create(OWNER, Role.USER, secret=own.text)
    again = await (await opened(database)).create(OWNER, Role.USER, secret=own.text)
    assert made[0] == again[0] and made[1] == again[1] == own.text and len(service.list()) == 1
    assert service.authenticate(own.text, PEER).owner == OWNER
    other = await refused_later(service.create(OWNER, Role.USER, secret=api_key.new().text))
    same_id = api_key.Presented(own.id, api_key.new().secret)
    assert other.reason == (await refused_later(service.create(OWNER, Role.USER, secret=same_id.text))).reason
    assert other.reason == "KEY_EXISTS"
    for text in ("x", own.text[:-1], f"{own.text}0", own.text.upper()):
        assert (await refused_later(service.create("x", Role.USER, secret=text))).field == "secret"
    taken = await refused_later(service.create("another owner", Role.USER, secret=own.text))
    assert taken.reason == "KEY_EXISTS"
    assert service.authenticate(own.text, PEER).owner == OWNER


async def test_a_key_that_replaces_another(service: KeyService) -> None:
    """Made again it replaces nothing more; it takes over role, tier and lapse."""
    old, text = await service.create(OWNER, Role.ADMIN)
    await service.suspend(OWNER, lapsed=True)
    new = api_key.new()
    for _ in range(2):
        made, _ = await service.create(OWNER, Role.USER, secret=new.text, replaces=old.id)
    assert (made.id, made.role, made.is_lapsed) == (new.id, Role.ADMIN, True)
    assert refused(lambda: service.authenticate(text, PEER)).reason == "UNAUTHENTICATED"
    late = await refused_later(service.create(OWNER, Role.USER, secret=api_key.new().text, replaces=old.id))
    assert late.reason == "KEY_EXISTS", "another has replaced it meanwhile"
    others = await service.create("bob", Role.USER)
    theirs = await refused_later(service.create(OWNER, Role.USER, secret=api_key.new().text, replaces=others[0].id))
    assert theirs.reason == "KEY_EXISTS" and service.get("bob").id == others[0].id


async def test_what_an_admin_suspended_or_banned_is_not_replaced(service: KeyService) -> None:
    old, _ = await service.create(OWNER, Role.USER)
    await service.suspend(OWNER)
    asked = {"secret": api_key.new().text, "replaces": old.id}
    assert (await refused_later(service.create(OWNER, Role.USER, **asked))).reason == "KEY_SUSPENDED"
    await service.resume(OWNER)
    await service.ban(OWNER)
    assert (await refused_later(service.create(OWNER, Role.USER, **asked))).reason == "KEY_BANNED"
    assert service.get(OWNER).id == old.id


async def test_a_lapse_and_an_admins_word_do_not_lift_each_other(service: KeyService, database: Database) -> None:
    _, text = await service.create(OWNER, Role.USER)
    await service.suspend(OWNER, lapsed=True)
    lapsed = refused(lambda: service.authenticate(text, PEER))
    assert lapsed.reason == "KEY_SUSPENDED" and "subscription" in lapsed.message
    await service.suspend(OWNER)
    await service.resume(OWNER, lapsed=True)
    service = await opened(database)
    assert service.get(OWNER).state is State.SUSPENDED
    assert "subscription" not in refused(lambda: service.authenticate(text, PEER)).message
    await service.suspend(OWNER, lapsed=True)
    assert (await service.resume(OWNER)).state is State.ACTIVE, "an admin lifts both"
    assert service.authenticate(text, PEER).owner == OWNER


async def test_who_has_no_key_can_be_banned_by_name(service: KeyService) -> None:
    assert (await refused_later(service.ban(OWNER))).reason == "UNKNOWN_KEY"
    assert (await service.ban(OWNER, without_key=True)).state is State.BANNED
    assert (await refused_later(service.create(OWNER, Role.USER))).reason == "KEY_BANNED"


async def test_forgetting_keeps_bans_and_what_an_admin_suspended(service: KeyService) -> None:
    await service.create(OWNER, Role.USER)
    assert await service.forget(OWNER) and await service.forget(OWNER) and not service.list()
    await service.create(OWNER, Role.USER)
    await service.suspend(OWNER)
    assert not await service.forget(OWNER) and service.get(OWNER).state is State.SUSPENDED
    await service.ban(OWNER)
    assert service.get(OWNER).state is State.BANNED


async def test_the_bot_is_named_to_who_has_no_key(service: KeyService) -> None:
    assert "t.me" not in refused(lambda: service.authenticate("", PEER)).hint
    service.note_bot("craft_bot")
    assert "https://t.me/craft_bot" in refused(lambda: service.authenticate("", PEER)).hint
    service.note_bot("")
    assert "t.me" not in refused(lambda: service.authenticate("x", PEER)).hint


@pytest.fixture
async def listening(home: Home) -> AsyncIterator[Daemon]:
    home.env["CRAFT_DAEMON_LISTEN"] = "127.0.0.1:0"
    home.paths.config_file.write_text("[tiers.default]\nimages_in_flight = 2\nrequests_per_minute = 50\n")
    async with running(home) as daemon:
        yield daemon


async def test_an_admin_calls_for_an_owner_within_the_owners_quota(listening: Daemon) -> None:
    keys = keys_pb2_grpc.KeysStub(listening.channel)
    admin = await keys.CreateKey(keys_pb2.CreateKeyRequest(owner="ops", role=keys_pb2.KEY_ROLE_ADMIN))

    async def three(number: int) -> tuple[keys_pb2.CreateKeyResponse, jobs_pb2.Job, keys_pb2.Usage]:
        user = await keys.CreateKey(keys_pb2.CreateKeyRequest(owner=f"telegram:{number}"))
        as_owner = (("craft-owner", user.key.owner),)
        made = await listening.jobs.CreateJob(request("[held] x", count=2), metadata=as_owner)
        assert made.owner == user.key.owner
        for asked, refusal in ((request(), "RATE_LIMITED"), (request(count=3), "INVALID_FIELD")):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await listening.jobs.CreateJob(asked, metadata=as_owner)
            assert reason(caught.value) == refusal
        return user, made, await keys.GetUsage(keys_pb2.GetUsageRequest(key=user.key.owner))

    user, made, used = await within_a_minute(three)
    own = user.key.owner
    assert (used.images_in_flight, used.most_images_in_flight, used.requests_per_minute) == (2, 2, 50)
    assert used.requests == 3 and used.key.id == user.key.id
    mine = await listening.jobs.ListJobs(jobs_pb2.ListJobsRequest(), metadata=(("craft-owner", own),))
    assert [job.id for job in mine.jobs] == [made.id]
    await _from_afar(listening, user, admin.secret, made.id)
    await keys.SuspendKey(keys_pb2.SuspendKeyRequest(key=own, lapsed=True))
    for owner, refusal in ((own, "KEY_SUSPENDED"), ("nobody", "UNKNOWN_KEY")):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await listening.jobs.GetJob(jobs_pb2.GetJobRequest(id=made.id), metadata=(("craft-owner", owner),))
        assert reason(caught.value) == refusal


async def _from_afar(daemon: Daemon, user: keys_pb2.CreateKeyResponse, admin: str, job_id: str) -> None:
    """An admin's key may, a user's may not, not even for its own owner; and no admin's rights come with it."""
    listen = (await daemon.status()).listen
    async with grpc.aio.insecure_channel(listen) as channel:
        jobs, daemons = jobs_pb2_grpc.JobsStub(channel), daemon_pb2_grpc.DaemonStub(channel)
        for key, owner, refusal in (
            (user.secret, user.key.owner, "NOT_ALLOWED"),
            (user.secret, "ops", "NOT_ALLOWED"),
            ("", user.key.owner, "UNAUTHENTICATED"),
        ):
            metadata = (("x-api-key", key), ("craft-owner", owner))
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await jobs.GetJob(jobs_pb2.GetJobRequest(id=job_id), metadata=metadata)
            assert reason(caught.value) == refusal
        metadata = (("x-api-key", admin), ("craft-owner", user.key.owner))
        assert (await jobs.GetJob(jobs_pb2.GetJobRequest(id=job_id), metadata=metadata)).owner == user.key.owner
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await daemons.Shutdown(daemon_pb2.ShutdownRequest(now=True), metadata=metadata)
        assert reason(caught.value) == "NOT_ALLOWED"


async def test_all_of_an_owners_is_forgotten_and_nothing_of_anothers(daemon: Daemon) -> None:
    keys = keys_pb2_grpc.KeysStub(daemon.channel)
    for owner in (OWNER, "telegram:11"):
        await keys.CreateKey(keys_pb2.CreateKeyRequest(owner=owner))
        as_owner = (("craft-owner", owner),)
        done = await daemon.jobs.CreateJob(request(f"the words of {owner}", count=2), metadata=as_owner)
        await daemon.finish(done.id)
        await daemon.jobs.CreateJob(request(f"[held] more of {owner}"), metadata=as_owner)
    for jobs, images in ((2, 2), (0, 0)):
        gone = await keys.ForgetOwner(keys_pb2.ForgetOwnerRequest(owner=OWNER))
        assert (gone.jobs, gone.images, gone.datasets, gone.key_kept) == (jobs, images, 0, False)
    left = await daemon.jobs.ListJobs(jobs_pb2.ListJobsRequest())
    assert [job.owner for job in left.jobs] == ["telegram:11"] * 2
    assert [key.owner for key in (await keys.ListKeys(keys_pb2.ListKeysRequest())).keys] == ["telegram:11"]
    kept = [path for path in daemon.home.paths.images_dir.iterdir() if path.is_file()]
    assert len(kept) == 2
    assert (await daemon.create("somebody goes on", steps=1)).id
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await keys.ForgetOwner(keys_pb2.ForgetOwnerRequest())
    assert reason(caught.value) == "INVALID_FIELD"
