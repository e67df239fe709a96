"""Callers from afar: over TCP and TLS, with the limits of their keys."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import grpc
import grpc.aio
import pytest
from craft_protos import api_key as keys
from craft_protos import daemon_pb2, daemon_pb2_grpc, images_pb2, images_pb2_grpc, jobs_pb2, jobs_pb2_grpc
from craft_protos.jobs_pb2 import JOB_STATE_QUEUED, JOB_STATE_SUCCEEDED
from craft_protos.keys_pb2 import BanOwnerRequest, CreateKeyRequest, ListKeysRequest, SuspendKeyRequest
from craft_protos.keys_pb2_grpc import KeysStub
from craft_protos.reasons import CraftError
from craft_protos.settings import DaemonSettings
from craftd.keys.caller import LOCAL, Caller, Role
from craftd.keys.rates import Rate
from craftd.keys.service import KeyService
from craftd.rpc import tcp
from craftd.rpc.auth import MOST_STREAMS, Context, Gate

from tests.daemon import certificates
from tests.daemon.certificates import Certificates
from tests.daemon.harness import Daemon, details, is_whole, reason, request, running, spawn, within_a_minute
from tests.home import HANG_S, Home

LISTEN = {"CRAFT_DAEMON_LISTEN": "127.0.0.1:0"}


class Remote:
    """A caller with a key, or without."""

    def __init__(self, address: str, key: str = "", ca: Path | None = None) -> None:
        self.metadata = [("x-api-key", key)] if key else []
        if ca is None:
            self.channel = grpc.aio.insecure_channel(address)
        else:
            self.channel = grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(ca.read_bytes()))
        self.jobs = jobs_pb2_grpc.JobsStub(self.channel)
        self.images = images_pb2_grpc.ImagesStub(self.channel)
        self.daemon = daemon_pb2_grpc.DaemonStub(self.channel)

    async def create(self, prompt: str = "a red apple", **fields: object) -> jobs_pb2.Job:
        return await self.jobs.CreateJob(request(prompt, **fields), metadata=self.metadata)

    async def draw(self, **fields: object) -> bytes:
        """A picture's file."""
        job = await self.create(**fields)
        watching = self.jobs.WatchJob(jobs_pb2.WatchJobRequest(id=job.id), metadata=self.metadata)
        ended = [event.finished.job async for event in watching][-1]
        assert ended.state == JOB_STATE_SUCCEEDED
        parts = self.images.GetImage(images_pb2.GetImageRequest(id=ended.images[0].id), metadata=self.metadata)
        return b"".join([part.chunk async for part in parts])

    async def status(self) -> daemon_pb2.DaemonStatus:
        return await self.daemon.GetStatus(daemon_pb2.GetStatusRequest(), metadata=self.metadata, timeout=HANG_S)


@contextlib.asynccontextmanager
async def remote(daemon: Daemon, key: str = "", ca: Path | None = None) -> AsyncIterator[Remote]:
    made = Remote((await daemon.status()).listen.replace("0.0.0.0", "127.0.0.1"), key, ca)
    try:
        yield made
    finally:
        await made.channel.close()


async def new_key(daemon: Daemon, owner: str, tier: str = "") -> str:
    made = await KeysStub(daemon.channel).CreateKey(CreateKeyRequest(owner=owner, tier=tier))
    return made.secret


async def failure(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


# Where it listens


@pytest.fixture(scope="module")
def pems(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certificates.make(tmp_path_factory.mktemp("pems"))


def refused(**settings: str) -> CraftError:
    with pytest.raises(CraftError) as caught:
        tcp.configured(DaemonSettings(**settings))
    assert caught.value.reason == "CONFIG_INVALID" and caught.value.hint
    return caught.value


def test_off_the_loopback_device_it_is_tls_or_nothing(pems: Certificates) -> None:
    for address in ("0.0.0.0:1", "192.0.2.1:1", "[::]:1", "example.org:1", "127.0.0.1.example.org:1"):
        assert "no TLS" in refused(listen=address).message
        files = {"tls_cert": str(pems.cert), "tls_key": str(pems.key)}
        assert tcp.configured(DaemonSettings(listen=address, **files)) is not None
    for address in ("127.0.0.1:1", "127.9.9.9:1", "localhost:1", "[::1]:1"):
        assert tcp.configured(DaemonSettings(listen=address)) is not None
    assert tcp.configured(DaemonSettings()) is None


def test_a_certificate_that_will_not_do_is_named(pems: Certificates, tmp_path: Path) -> None:
    other = certificates.make(tmp_path)
    cert, key, torn = str(pems.cert), str(pems.key), tmp_path / "torn.pem"
    torn.write_bytes(pems.cert.read_bytes()[:100])
    at = "127.0.0.1:1"
    assert "daemon.tls_key: is not set" in refused(listen=at, tls_cert=cert).message
    assert "daemon.tls_cert: is not set" in refused(listen=at, tls_key=key).message
    assert "no pair" in refused(listen=at, tls_cert=cert, tls_key=str(other.key)).message
    assert "no pair" in refused(listen=at, tls_cert=str(torn), tls_key=key).message
    assert "cannot be read" in refused(listen=at, tls_cert=cert, tls_key=str(tmp_path / "none")).message


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o602])
def test_a_tls_key_that_others_can_read_is_refused(pems: Certificates, tmp_path: Path, mode: int) -> None:
    key = tmp_path / "key.pem"
    key.write_bytes(pems.key.read_bytes())
    key.chmod(mode)
    settings = {"listen": "127.0.0.1:1", "tls_cert": str(pems.cert), "tls_key": str(key)}
    if mode == 0o640 and os.getuid() == 0:  # root may share its key with a group
        assert tcp.configured(DaemonSettings(**settings)) is not None
        return
    refusal = refused(**settings)
    assert f"mode {mode:o}" in refusal.message and refusal.hint == f"chmod 600 {key}"
    key.chmod(0o600)
    assert tcp.configured(DaemonSettings(**settings)) is not None


async def test_a_port_that_is_taken_stops_the_start(make_home: Callable[..., Home]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        process, said = await spawn(make_home(CRAFT_DAEMON_LISTEN=address))
        assert await process.wait() == 78
    error = said["error"]
    assert isinstance(error, dict) and error["reason"] == "CONFIG_INVALID"
    assert address in error["message"] and "in use" in error["message"]


async def test_pictures_come_over_tls(make_home: Callable[..., Home], pems: Certificates, tmp_path: Path) -> None:
    files = {"CRAFT_DAEMON_TLS_CERT": str(pems.cert), "CRAFT_DAEMON_TLS_KEY": str(pems.key)}
    async with running(make_home(CRAFT_DAEMON_LISTEN="0.0.0.0:0", **files)) as daemon:
        key = await new_key(daemon, "alice")
        async with remote(daemon, key, pems.ca) as alice:
            assert is_whole(await alice.draw())
        async with remote(daemon, "", pems.ca) as nobody:
            assert reason(await failure(nobody.status())) == "UNAUTHENTICATED"
        stranger = await asyncio.to_thread(certificates.make, tmp_path)
        for ca in (stranger.ca, None):
            async with remote(daemon, key, ca) as misled:
                assert (await failure(misled.status())).code() is grpc.StatusCode.UNAVAILABLE


# What a key may


@pytest.mark.parametrize("role", Role)
async def test_a_method_without_an_entry_is_refused(role: Role) -> None:
    class Keys:
        def authenticate(self, _key: str, peer: str) -> Caller:
            assert peer == "2001:db8::1"
            return Caller("alice", role, "k1")

        async def count(self, _: Caller) -> Rate:
            return Rate()

    def context(peer: str) -> Context:
        return cast(Context, SimpleNamespace(peer=lambda: peer, invocation_metadata=tuple))

    gate = Gate(cast(KeyService, Keys()))
    with pytest.raises(CraftError) as caught:
        await gate.enter("craft.v1.Jobs/NewMethod", context("ipv6:%5B2001:db8::1%5D:50000"))
    assert caught.value.reason == "NOT_ALLOWED"
    assert await gate.enter("craft.v1.Jobs/NewMethod", context("unix:")) is LOCAL


async def test_a_key_that_is_suspended_hears_no_more(make_home: Callable[..., Home]) -> None:
    async with running(make_home(**LISTEN)) as daemon:
        admin = KeysStub(daemon.channel)
        async with remote(daemon, await new_key(daemon, "alice")) as alice:
            job = await alice.create("[held] an apple")
            watching = alice.jobs.WatchJob(jobs_pb2.WatchJobRequest(id=job.id), metadata=alice.metadata)
            events = aiter(watching)
            assert (await anext(events)).WhichOneof("event") == "snapshot"
            await admin.SuspendKey(SuspendKeyRequest(key="alice"))
            assert reason(await failure(alice.create())) == "KEY_SUSPENDED"
            daemon.home.release()

            async def rest() -> None:
                _ = [event async for event in events]

            assert reason(await failure(rest())) == "KEY_SUSPENDED"
            assert (await daemon.finish(job.id)).state == JOB_STATE_SUCCEEDED  # what was accepted is not lost
            await admin.BanOwner(BanOwnerRequest(key="alice"))
            assert reason(await failure(alice.status())) == "KEY_BANNED"


async def test_a_key_has_so_many_streams(make_home: Callable[..., Home]) -> None:
    async with running(make_home(**LISTEN)) as daemon, remote(daemon, await new_key(daemon, "alice")) as alice:
        job = await alice.create("[held] an apple")

        async def watch() -> Any:
            events = aiter(alice.jobs.WatchJob(jobs_pb2.WatchJobRequest(id=job.id), metadata=alice.metadata))
            await anext(events)
            return events

        held = [await watch() for _ in range(MOST_STREAMS)]
        refusal = await failure(watch())
        assert reason(refusal) == "RATE_LIMITED" and "RetryInfo" in details(refusal)
        await daemon.see(job.id, "snapshot")  # nobody else is kept out
        daemon.home.release()
        ends = [[event async for event in events][-1] for events in held]
        assert {end.finished.job.state for end in ends} == {JOB_STATE_SUCCEEDED}
        await watch()


TIERS = """\
[daemon]
queue_limit = 8
[tiers.default]
images_in_flight = 3
queue_share = 0.25
[tiers.slow]
requests_per_minute = 2
"""


async def test_a_key_has_its_share_and_others_theirs(make_home: Callable[..., Home]) -> None:
    home = make_home(**LISTEN, CRAFT_WORKER_MAX_ROWS="1")
    home.paths.config_file.write_text(TIERS)
    async with running(home) as daemon:
        holding = await daemon.create("[held] an apple", count=2)  # what follows waits
        await daemon.has_begun(holding.id)
        alice, bob = [await new_key(daemon, owner) for owner in ("alice", "bob")]
        async with remote(daemon, alice) as first, remote(daemon, bob) as second:
            for count in (1, 2):
                assert (await first.create(count=count)).state == JOB_STATE_QUEUED
            for refusal in (await failure(first.create()), await failure(first.create())):
                assert reason(refusal) == "QUEUE_FULL" and "RetryInfo" in details(refusal)
                assert refusal.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert (await second.create(count=2)).state == JOB_STATE_QUEUED
            refusal = await failure(second.create(count=2))
            assert reason(refusal) == "RATE_LIMITED" and "RetryInfo" in details(refusal)
            assert reason(await failure(second.create(count=4))) == "INVALID_FIELD"
            again = request(request_id="once")
            made = [await second.jobs.CreateJob(again, metadata=second.metadata) for _ in range(2)]
            assert made[0].id == made[1].id  # a repetition finds its job, however full the queue


async def test_a_key_has_its_rate(make_home: Callable[..., Home]) -> None:
    home = make_home(**LISTEN)
    home.paths.config_file.write_text(TIERS)
    async with running(home) as daemon:

        async def three(number: int) -> list[Any]:
            async with remote(daemon, await new_key(daemon, f"alice {number}", "slow")) as alice:
                return [(await asyncio.gather(alice.status(), return_exceptions=True))[0] for _ in range(3)]

        *within, refusal = await within_a_minute(three)
        assert [one.pid for one in within] == [daemon.process.pid] * 2
        assert reason(refusal) == "RATE_LIMITED" and "RetryInfo" in details(refusal)
        async with remote(daemon, await new_key(daemon, "bob")) as bob:
            assert (await bob.status()).pid == daemon.process.pid


async def test_wrong_keys_again_and_again_must_wait(make_home: Callable[..., Home]) -> None:
    async with running(make_home(**LISTEN, CRAFT_KEYS_FAILURES_PER_MINUTE="3")) as daemon:
        right = await new_key(daemon, "alice")
        async with remote(daemon, keys.new().text) as guesser:
            refusals = [await failure(guesser.status()) for _ in range(5)]
        assert [reason(one) for one in refusals] == ["UNAUTHENTICATED"] * 3 + ["RATE_LIMITED"] * 2
        assert "RetryInfo" in details(refusals[-1])
        async with remote(daemon, right) as alice:
            assert (await alice.status()).pid == daemon.process.pid


async def test_the_last_use_outlives_the_daemon(make_home: Callable[..., Home]) -> None:
    home = make_home(**LISTEN)
    async with running(home) as daemon:
        async with remote(daemon, await new_key(daemon, "alice")) as alice:
            await alice.status()
        listed = (await KeysStub(daemon.channel).ListKeys(ListKeysRequest())).keys
        assert await daemon.stop() == 0
    ((stored,),) = home.rows("SELECT last_used_time FROM keys")
    assert stored == pytest.approx(listed[0].last_used_time.seconds + listed[0].last_used_time.nanos / 1e9)
