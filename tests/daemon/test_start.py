"""What keeps the daemon from starting: one line, a hint, an exit code, and nothing touched."""

from __future__ import annotations

import stat

import apsw
import grpc
import grpc.aio
import pytest
from craft_protos import daemon_pb2, jobs_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tests.daemon.harness import Daemon, reason, running, spawn
from tests.home import Home


async def _refusal(home: Home) -> tuple[int | None, str, str]:
    """(exit code, stderr, the reason on the ready pipe) of a daemon that doesn't start."""
    process, said = await spawn(home)
    stderr = (await process.communicate())[1].decode()
    assert "Traceback" not in stderr and stderr.startswith("craftd: ") and stderr.count("\n") == 2
    return process.returncode, stderr, said["error"]["reason"]  # type: ignore[index]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[daemon]\nqueue_limit = 3\nqueue_limitt = 3\n", ":3: unknown key daemon.queue_limitt"),
        ("[daemon\n", ":1: not valid TOML"),
        ("[daemon]\n\nqueue_limit = 'many'\n", ":3: daemon.queue_limit must be a whole number"),
        ("[demon]\n", ":1: unknown section"),
        ("[daemon]\ngrace_s = 1\nqueue_limit = 0\n", ":3: daemon.queue_limit must be from 1 to 1000000, not 0"),
    ],
)
async def test_a_wrong_configuration_is_named_by_line(home: Home, text: str, told: str) -> None:
    home.paths.config_file.write_text(text)
    code, stderr, why = await _refusal(home)
    assert (code, why) == (78, "CONFIG_INVALID") and f"{home.paths.config_file}{told}" in stderr


async def test_what_is_not_a_database_is_left_as_it_is(home: Home) -> None:
    home.paths.database.write_bytes(b"<html>not a database</html>" * 100)
    code, stderr, why = await _refusal(home)
    assert (code, why) == (78, "STORE_CORRUPT") and "restore: mv" in stderr
    assert home.paths.database.read_bytes() == b"<html>not a database</html>" * 100


async def test_a_malformed_database_is_refused_and_its_backup_named(home: Home) -> None:
    async with running(home) as daemon:
        await daemon.finish((await daemon.create()).id)
        await daemon.stop()
    content = bytearray(home.paths.database.read_bytes())
    content[4096 * 2 :] = b"\xa5" * (len(content) - 4096 * 2)
    home.paths.database.write_bytes(content)
    code, stderr, why = await _refusal(home)
    assert (code, why) == (78, "STORE_CORRUPT")
    assert f"cp {home.paths.database}.bak {home.paths.database}" in stderr
    assert home.paths.database.read_bytes() == content
    home.paths.database.write_bytes(home.paths.database.with_name("craft.db.bak").read_bytes())
    async with running(home) as daemon:
        assert len((await daemon.jobs.ListJobs(jobs_pb2.ListJobsRequest())).jobs) == 1


async def test_a_newer_database_is_refused_and_not_written_to(home: Home) -> None:
    async with running(home) as daemon:
        await daemon.stop()
    connection = apsw.Connection(str(home.paths.database))
    connection.execute("UPDATE meta SET value = '9.9' WHERE key = 'craft_version'; PRAGMA user_version = 999")
    connection.close()
    before = home.paths.database.read_bytes()
    code, stderr, why = await _refusal(home)
    assert (code, why) == (78, "STORE_NEWER") and "made by craft 9.9" in stderr
    assert home.paths.database.read_bytes() == before
    assert not list(home.paths.data_dir.glob("craft.db-*"))


async def test_the_socket_is_for_its_owner_alone(daemon: Daemon) -> None:
    path = daemon.home.paths.socket
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


async def test_two_data_folders_of_one_user_have_a_daemon_each(home: Home, make_home: type[Home]) -> None:
    other = make_home(CRAFT_RUNTIME_DIR=home.env["CRAFT_RUNTIME_DIR"])
    async with running(home) as first, running(other) as second:
        assert first.address != second.address
        assert (await first.status()).pid == first.process.pid
        assert (await second.status()).pid == second.process.pid


async def test_health_and_reflection(daemon: Daemon) -> None:
    health = health_pb2_grpc.HealthStub(daemon.channel)
    answer = await health.Check(health_pb2.HealthCheckRequest())
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.aio.AioRpcError) as unknown:
        await health.Check(health_pb2.HealthCheckRequest(service="nothing"))
    assert unknown.value.code() == grpc.StatusCode.NOT_FOUND
    reflection = reflection_pb2_grpc.ServerReflectionStub(daemon.channel)
    asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    answers = [one async for one in reflection.ServerReflectionInfo(asked)]
    names = {service.name for service in answers[0].list_services_response.service}
    assert {"craft.v1.Jobs", "craft.v1.Images", "craft.v1.Models", "craft.v1.Daemon"} <= names


async def test_health_can_be_watched_until_the_daemon_stops(home: Home) -> None:
    async with running(home) as daemon:
        watch = health_pb2_grpc.HealthStub(daemon.channel).Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        await daemon.daemon.Shutdown(daemon_pb2.ShutdownRequest())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert await watch.code() != grpc.StatusCode.INTERNAL
        assert await daemon.process.wait() == 0


@pytest.mark.parametrize(
    "method", ["/craft.v1.Jobs/CreateJob", "/craft.v1.Jobs/WatchJob", "/grpc.health.v1.Health/Check"]
)
async def test_what_cannot_be_decoded_tells_nothing_of_the_inside(daemon: Daemon, method: str) -> None:
    call = daemon.channel.unary_stream if method.endswith("WatchJob") else daemon.channel.unary_unary
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        answer = call(method)(b"\xff\xff\xff\xff garbage")  # type: ignore[operator]
        await (answer.read() if method.endswith("WatchJob") else answer)
    assert (refused.value.code(), reason(refused.value)) == (grpc.StatusCode.INVALID_ARGUMENT, "UNDECODABLE")
    assert refused.value.details() == "the message could not be decoded"


async def test_a_message_over_the_limit_is_refused(daemon: Daemon) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await daemon.create("x" * (5 << 20))
    assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    await daemon.finish((await daemon.create()).id)


async def test_the_front_stays_small(daemon: Daemon) -> None:
    for _ in range(20):
        await daemon.finish((await daemon.create(count=4)).id)
    assert (await daemon.status()).rss_bytes < 80 << 20


async def test_an_idle_daemon_can_be_shut_down_by_a_call(home: Home) -> None:
    async with running(home) as daemon:
        await daemon.daemon.Shutdown(daemon_pb2.ShutdownRequest())
        assert await daemon.process.wait() == 0
        assert home.paths.lock_file.read_text() == ""
