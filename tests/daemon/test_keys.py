"""Keys without a daemon: their form, their states, what is kept of them, who must wait."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from craft_protos import api_key as keys
from craft_protos.reasons import CraftError
from craft_protos.settings import DaemonSettings, KeySettings, Settings, TierSettings
from craftd.keys import adminfile
from craftd.keys.caller import LOCAL, Caller, Role
from craftd.keys.failures import Failures
from craftd.keys.key import State
from craftd.keys.service import KeyService
from craftd.scheduler.quota import Load, Quota
from craftd.store.database import Database
from hypothesis import given
from hypothesis import strategies as st

PEER = "192.0.2.7"


@pytest.fixture
async def service(database: Database) -> KeyService:
    return await opened(database)


async def opened(database: Database, settings: Settings | None = None) -> KeyService:
    """As after a start of the daemon."""
    service = KeyService(database, settings or Settings())
    await service.open()
    return service


def refused(call: Callable[[], object]) -> CraftError:
    with pytest.raises(CraftError) as caught:
        call()
    return caught.value


async def refused_later(coroutine: object) -> CraftError:
    with pytest.raises(CraftError) as caught:
        await coroutine  # type: ignore[misc]
    return caught.value


def contents(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.iterdir())


# Their form


def test_a_key_is_found_again_and_none_is_like_another() -> None:
    made = [keys.new() for _ in range(100)]
    assert [keys.parse(one.text) for one in made] == made
    assert len({one.text for one in made}) == len({one.id for one in made}) == 100
    assert made[0].secret not in repr(made[0])


@given(st.data())
def test_a_slip_of_the_pen_is_no_key(data: st.DataObject) -> None:
    text = data.draw(st.builds(lambda: keys.new().text))
    place = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.characters().filter(lambda one: one != text[place]))
    assert keys.parse(text[:place] + other + text[place + 1 :]) is None
    assert keys.parse(text[:place] + text[place + 1 :]) is None


@given(st.text())
def test_what_is_no_key_is_none(text: str) -> None:
    assert keys.parse(text) is keys.parse("craft_" + text) is keys.parse(text + "\n") is None


async def test_a_malformed_key_costs_no_query(service: KeyService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Database, "submit", lambda *_: pytest.fail("the database was asked"))
    for wrong in ("", "x" * 100_000, "craft_0123456789_abc", keys.new().text[:-1], keys.new().text):
        assert refused(lambda wrong=wrong: service.authenticate(wrong, PEER)).reason == "UNAUTHENTICATED"


# Their life


async def test_the_secret_is_nowhere(service: KeyService, database: Database, tmp_path: Path) -> None:
    key, text = await service.create("alice", Role.USER)
    presented = keys.parse(text)
    assert presented is not None and presented.secret not in repr(key)
    written = contents(tmp_path)
    assert presented.id.encode() in written and presented.secret.encode() not in written


async def test_a_key_says_who_calls(service: KeyService, database: Database) -> None:
    user, admin = await service.create("alice", Role.USER), await service.create("ops", Role.ADMIN)
    for one in (service, await opened(database)):
        assert one.authenticate(user[1], PEER) == Caller("alice", Role.USER, user[0].id, "default")
        assert one.authenticate(admin[1], PEER).is_admin
    other = keys.Presented(user[0].id, keys.new().secret).text
    assert refused(lambda: service.authenticate(other, PEER)).reason == "UNAUTHENTICATED"


async def test_a_suspended_key_works_again_unchanged(service: KeyService, database: Database) -> None:
    key, text = await service.create("alice", Role.USER)
    caller = service.authenticate(text, PEER)
    assert (await service.suspend("alice")).state is State.SUSPENDED
    for one in (service, await opened(database)):
        assert refused(lambda one=one: one.authenticate(text, PEER)).reason == "KEY_SUSPENDED"
    assert refused(lambda: service.check(caller)).reason == "KEY_SUSPENDED"
    assert (await service.resume(key.id)).state is State.ACTIVE
    assert service.authenticate(text, PEER) == caller
    service.check(caller)


async def test_an_owner_has_one_key(service: KeyService) -> None:
    await service.create("alice", Role.USER)
    for again in ("alice", "ALICE"):
        assert (await refused_later(service.create(again, Role.ADMIN))).reason == "KEY_EXISTS"
    await service.suspend("alice")
    assert (await refused_later(service.create("alice", Role.USER))).reason == "KEY_EXISTS"
    await service.delete("alice")
    assert (await service.create("alice", Role.USER))[0].owner == "alice"
    made = await asyncio.gather(*(service.create("bob", Role.USER) for _ in range(5)), return_exceptions=True)
    assert [one.reason for one in made if isinstance(one, CraftError)] == ["KEY_EXISTS"] * 4


async def test_case_counts_in_no_alphabet(service: KeyService) -> None:
    _, text = await service.create("Émile", Role.USER)
    assert (await refused_later(service.create("émile", Role.USER))).reason == "KEY_EXISTS"
    assert (await service.ban("ÉMILE")).owner == "Émile"
    assert refused(lambda: service.authenticate(text, PEER)).reason == "KEY_BANNED"
    await service.delete("émile")
    assert (await refused_later(service.create("e\u0301mile", Role.USER))).reason == "KEY_BANNED"


async def test_a_ban_is_for_good(service: KeyService, database: Database) -> None:
    _, text = await service.create("alice", Role.USER)
    caller = service.authenticate(text, PEER)
    assert (await service.ban("alice")).state is State.BANNED
    assert refused(lambda: service.authenticate(text, PEER)).reason == "KEY_BANNED"
    assert refused(lambda: service.check(caller)).reason == "KEY_BANNED"
    assert (await refused_later(service.resume("alice"))).reason == "KEY_BANNED"
    await service.delete("alice")
    for one in (service, await opened(database)):
        assert refused(lambda one=one: one.authenticate(text, PEER)).reason == "UNAUTHENTICATED"
        assert (await refused_later(one.create("Alice", Role.USER))).reason == "KEY_BANNED"
        assert [(key.id, key.owner, key.state) for key in one.list()] == [("", "alice", State.BANNED)]
        assert (await refused_later(one.delete("alice"))).reason == "UNKNOWN_KEY"
        assert not one.has_some


async def test_a_deleted_key_ends_what_lasts(service: KeyService) -> None:
    caller = service.authenticate((await service.create("alice", Role.USER))[1], PEER)
    await service.delete("alice")
    assert refused(lambda: service.check(caller)).reason == "UNAUTHENTICATED"
    service.check(LOCAL)


async def test_a_change_counts_when_its_caller_has_gone(service: KeyService) -> None:
    _, text = await service.create("alice", Role.USER)
    suspending = asyncio.create_task(service.suspend("alice"))
    await asyncio.sleep(0)
    suspending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await suspending
    await service.create("bob", Role.USER)  # the store works in the order of the calls
    assert refused(lambda: service.authenticate(text, PEER)).reason == "KEY_SUSPENDED"


@pytest.mark.parametrize(
    "owner", ["", " alice", "a\nb", "a\0", "x" * 101, "local", "LOCAL", pytest.param(keys.new().text, id="a key")]
)
async def test_owners_have_names(service: KeyService, owner: str) -> None:
    error = await refused_later(service.create(owner, Role.USER))
    assert (error.reason, error.field) == ("INVALID_FIELD", "owner")
    assert keys.parse(owner) is None or owner not in error.message


async def test_wrong_names_get_the_nearest(service: KeyService) -> None:
    await service.create("alice", Role.USER)
    for act in (service.suspend, service.resume, service.ban, service.delete):
        error = await refused_later(act("alise"))
        assert error.reason == "UNKNOWN_KEY" and "alice" in error.hint
    whole = keys.new().text
    assert whole not in (await refused_later(service.ban(whole))).message


async def test_the_last_use_is_written_now_and_then(service: KeyService, database: Database) -> None:
    _, text = await service.create("alice", Role.USER)
    assert service.list()[0].last_used_time is None
    service.authenticate(text, PEER)
    used = service.list()[0].last_used_time
    assert used and (await opened(database)).list()[0].last_used_time is None
    await service.flush()
    assert (await opened(database)).list()[0].last_used_time == used == service.list()[0].last_used_time


# The first one, from a file


def with_file(path: Path) -> Settings:
    return Settings(keys=KeySettings(admin_key_file=str(path)))


async def test_the_first_key_comes_from_a_file(database: Database, tmp_path: Path) -> None:
    path, text = tmp_path / "admin.key", keys.new().text
    path.write_text(text + "\n")
    path.chmod(0o600)
    for _ in range(2):
        service = await opened(database, with_file(path))
        caller = service.authenticate(text, PEER)
        assert (caller.owner, caller.role) == ("admin", Role.ADMIN)
    path.write_text((other := keys.new()).text)
    service = await opened(database, with_file(path))
    assert [(key.id, key.owner) for key in service.list()] == [(other.id, "admin")]
    assert refused(lambda: service.authenticate(text, PEER)).reason == "UNAUTHENTICATED"


async def test_a_file_that_is_missing_is_made(database: Database, tmp_path: Path) -> None:
    path = tmp_path / "admin.key"
    service = await opened(database, with_file(path))
    assert path.stat().st_mode & 0o777 == 0o600
    assert service.authenticate(path.read_text().strip(), PEER).is_admin
    assert (await opened(database, with_file(path))).authenticate(path.read_text().strip(), PEER).is_admin


async def test_a_key_of_another_admin_in_the_file_stays_his(database: Database, tmp_path: Path) -> None:
    _, text = await (await opened(database)).create("ops", Role.ADMIN)
    path = tmp_path / "admin.key"
    path.write_text(text)
    path.chmod(0o600)
    service = await opened(database, with_file(path))
    assert [(key.owner, key.role) for key in service.list()] == [("ops", Role.ADMIN)]


async def test_a_suspended_key_of_the_file_stays_so(database: Database, tmp_path: Path) -> None:
    service = await opened(database, with_file(tmp_path / "admin.key"))
    await service.suspend("admin")
    assert (await opened(database, with_file(tmp_path / "admin.key"))).list()[0].state is State.SUSPENDED


@pytest.mark.parametrize(
    ("contents", "mode", "why"),
    [
        pytest.param(keys.new().text, 0o644, "mode 644", id="read by all"),
        pytest.param(keys.new().text, 0o602, "mode 602", id="written by all"),
        ("password", 0o600, "no key"),
        ("", 0o600, "no key"),
        pytest.param("ä" * 10, 0o600, "cannot be read", id="not ASCII"),
    ],
)
async def test_a_file_that_will_not_do_stops_the_start(
    database: Database, tmp_path: Path, contents: str, mode: int, why: str
) -> None:
    path = tmp_path / "admin.key"
    path.write_text(contents)
    path.chmod(mode)
    error = await refused_later(opened(database, with_file(path)))
    assert error.reason == "CONFIG_INVALID" and str(path) in error.message and why in error.message
    assert not contents or contents not in error.message + error.hint


async def test_a_pipe_is_no_key_file(database: Database, tmp_path: Path) -> None:
    os.mkfifo(path := tmp_path / "admin.key", 0o600)
    reading = os.open(path, os.O_RDWR)  # so that opening it does not wait
    try:
        error = await refused_later(opened(database, with_file(path)))
    finally:
        os.close(reading)
    assert error.reason == "CONFIG_INVALID" and "not a file" in error.message


# How much


async def test_each_key_has_its_rate(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 1.8e9 + 20)  # requests count by the clock's minutes: this one does not end
    tiers = {"default": TierSettings(requests_per_minute=3), "paying": TierSettings(requests_per_minute=5)}
    service = await opened(database, Settings(tiers=tiers))
    alice = service.authenticate((await service.create("alice", Role.USER))[1], PEER)
    bob = service.authenticate((await service.create("bob", Role.USER, "paying"))[1], PEER)
    rates = [await service.count(alice) for _ in range(3)]
    assert [(rate.limit, rate.remaining) for rate in rates] == [(3, 2), (3, 1), (3, 0)]
    assert 0 < rates[-1].reset_s <= 60
    one_more = await service.count(alice)
    with pytest.raises(CraftError, match="3 requests a minute") as caught:
        one_more.require_within()
    assert caught.value.reason == "RATE_LIMITED" and 0 < caught.value.retry_after_s <= 60
    assert (await service.count(bob)).remaining == 4
    assert (await service.count(LOCAL)).limit == 0


async def test_tiers_have_names(database: Database) -> None:
    service = await opened(database, Settings(tiers={"paying": TierSettings()}))
    error = await refused_later(service.create("alice", Role.USER, "payign"))
    assert (error.reason, error.field) == ("INVALID_FIELD", "tier") and "default, paying" in error.hint
    assert (await service.create("alice", Role.USER, "paying"))[0].tier == "paying"
    without = await opened(database)  # the tier was taken out of the configuration: the default one holds
    assert (await without.count(without.list()[0].caller)).limit == TierSettings.requests_per_minute


def test_whoever_fails_again_and_again_must_wait() -> None:
    now = 0.0
    failures = Failures(3, lambda: now)
    assert [failures.note(PEER) for _ in range(4)] == [0, 0, 0, 60]
    assert failures.note("192.0.2.8") == 0
    now = 59.0
    assert failures.note(PEER) == 1
    now = 61.0
    assert failures.note(PEER) == 0


def test_a_subscriber_of_ipv6_is_one_and_others_are_not() -> None:
    failures = Failures(1, lambda: 0.0)
    assert failures.note("2001:db8::1") == 0 and failures.note("2001:db8::ffff:1") > 0
    assert failures.note("2001:db8:0:1::1") == 0
    assert failures.note("::ffff:192.0.2.1") == 0 and failures.note("192.0.2.1") > 0
    assert failures.note("fe80::1%eth0") == 0 and failures.note("not an address") == 0


def test_failures_of_many_take_little_memory() -> None:
    failures = Failures(1, lambda: 0.0)
    for number in range(10_000):
        failures.note(f"10.0.{number >> 8}.{number & 255}")
    assert len(failures._windows) <= 4096


async def test_a_right_key_works_where_wrong_ones_were_tried(database: Database) -> None:
    service = await opened(database, Settings(keys=KeySettings(failures_per_minute=2)))
    _, text = await service.create("alice", Role.USER)
    wrong = [refused(lambda: service.authenticate(keys.new().text, PEER)) for _ in range(4)]
    assert [one.reason for one in wrong] == ["UNAUTHENTICATED"] * 2 + ["RATE_LIMITED"] * 2
    assert 0 < wrong[-1].retry_after_s <= 60
    assert service.authenticate(text, PEER).owner == "alice"
    assert refused(lambda: service.authenticate("", "192.0.2.9")).reason == "UNAUTHENTICATED"


# Places in the queue


class FakeQueue:
    def __init__(self, **loads: Load) -> None:
        self.loads = loads
        self.is_draining = False

    @property
    def queued(self) -> int:
        return sum(load.queued for load in self.loads.values())

    def load_of(self, owner: str) -> Load:
        return self.loads.get(owner, Load())


ALICE = Caller("alice", Role.USER, "k1", "default")
SHARED = Settings(
    daemon=DaemonSettings(queue_limit=4), tiers={"default": TierSettings(images_in_flight=8, queue_share=0.5)}
)


def test_a_key_has_its_share_of_the_queue() -> None:
    shares = Quota(FakeQueue(alice=Load(queued=1, images=1)), SHARED)
    shares.check(ALICE, 1)
    shares.reserve("alice", 1)
    error = refused(lambda: shares.check(ALICE, 1))
    assert (error.reason, error.retry_after_s > 0) == ("QUEUE_FULL", True) and "2 jobs" in error.message
    shares.check(replace(ALICE, owner="bob"), 1)
    shares.check(LOCAL, 100)
    shares.reserve("bob", 1)
    shares.reserve("bob", 1)
    assert "the queue is full" in refused(lambda: shares.check(LOCAL, 1)).message
    shares.release("alice", 1)
    shares.check(ALICE, 1)


def test_a_key_has_so_many_images_in_flight() -> None:
    shares = Quota(FakeQueue(alice=Load(queued=0, images=5)), SHARED)
    shares.check(ALICE, 3)
    error = refused(lambda: shares.check(ALICE, 4))
    assert (error.reason, error.retry_after_s > 0) == ("RATE_LIMITED", True)
    shares.reserve("alice", 3)
    assert refused(lambda: shares.check(ALICE, 1)).reason == "RATE_LIMITED"
    never = refused(lambda: shares.check(ALICE, 9))
    assert (never.reason, never.field, never.retry_after_s) == ("INVALID_FIELD", "count", 0)


def test_a_daemon_that_stops_takes_nothing() -> None:
    queue = FakeQueue()
    queue.is_draining = True
    assert refused(lambda: Quota(queue, SHARED).check(LOCAL, 1)).reason == "DRAINING"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_key_file_of_windows_programs_is_read(tmp_path: Path, encoding: str) -> None:
    """With the mark that they put before it."""
    made = keys.new()
    file = tmp_path / "admin.key"
    file.touch(0o600)
    file.write_bytes(f"{made.text}\r\n".encode(encoding))
    assert adminfile.load(file).text == made.text
