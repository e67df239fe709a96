"""Pictures to draw from: sent once, checked before they are decoded, an owner's own, kept while they are needed."""

from __future__ import annotations

import asyncio
import io
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import grpc.aio
import pytest
from craft_protos import daemon_pb2
from craft_protos import inputs_pb2 as pb
from craft_protos.generate import GenerateSpec, Mask, Start
from craft_protos.reasons import CraftError
from craft_protos.settings import LimitSettings
from craftd.inputs.input import Input, Upload
from craftd.inputs.service import InputService
from craftd.jobs import store as jobs
from craftd.jobs.job import Job
from craftd.store.contents import Contents
from craftd.store.database import Database
from craftd.workers.pictures import PictureFindings, inspect_pictures
from PIL import Image

from tests.daemon import sends
from tests.daemon.harness import Daemon, field, reason, running
from tests.daemon.sends import Put
from tests.daemon.test_datasets import animation, bomb, damaged, liar, sideways
from tests.home import HANG_S, Home
from tests.pictures import deep, picture

DATA = picture(1)
SHA256 = sends.sha256_of(DATA)
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="64" height="64"><image href="file:///etc/passwd"/></svg>'


def png(mode: str, **more: object) -> bytes:
    stream = io.BytesIO()
    Image.new(mode, (40, 24)).save(stream, "TIFF" if mode == "CMYK" else "PNG", **more)
    return stream.getvalue()


def cmyk() -> bytes:
    stream = io.BytesIO()
    Image.new("CMYK", (40, 24)).save(stream, "JPEG")
    return stream.getvalue()


async def test_a_picture_is_sent_and_found_after_kill_9(home: Home) -> None:
    async with running(home) as daemon:
        assert not (await sends.find(daemon, DATA)).HasField("input")
        made = await sends.put(daemon, DATA)
        assert (made.sha256, made.size_bytes, made.media_type) == (SHA256, len(DATA), "image/png")
        assert (made.width, made.height, made.has_alpha) == (96, 96, False)
        assert made.expire_time.seconds > 0
        await daemon.stop(signal.SIGKILL)
    async with running(home) as daemon:
        found = await sends.find(daemon, DATA)
        assert (found.input.sha256, found.received_bytes) == (SHA256, 0)
        assert (home.paths.inputs_dir / SHA256).read_bytes() == DATA
        assert [path.name for path in home.paths.inputs_dir.iterdir()] == [SHA256]


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (sideways, ("image/jpeg", 96, 128, False)),  # upright
        (lambda: picture(2, 40, 24, kind="WEBP"), ("image/webp", 40, 24, False)),
        (lambda: png("RGBA"), ("image/png", 40, 24, True)),
        (lambda: png("LA"), ("image/png", 40, 24, True)),
        (lambda: png("P", transparency=0), ("image/png", 40, 24, True)),
        (lambda: png("1"), ("image/png", 40, 24, False)),
        (deep, ("image/png", 96, 96, False)),
        (cmyk, ("image/jpeg", 40, 24, False)),
    ],
)
async def test_what_pictures_are(
    idle_daemon: Daemon, make: Callable[[], bytes], expected: tuple[str, int, int, bool]
) -> None:
    made = await sends.put(idle_daemon, make())
    assert (made.media_type, made.width, made.height, made.has_alpha) == expected


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (bomb, "megapixels"),
        (damaged, "cannot be decoded"),
        (liar, "cannot be decoded"),
        (animation, "animation"),
        (lambda: SVG, "no JPEG, PNG or WebP"),
        (lambda: b"<html>not found</html>", "no JPEG, PNG or WebP"),
        (lambda: picture(7, kind="GIF"), "no JPEG, PNG or WebP"),
        (lambda: picture(7, kind="TIFF"), "no JPEG, PNG or WebP"),
        (lambda: bytes(3000), "no JPEG, PNG or WebP"),
        (lambda: b"", "0 bytes"),
    ],
)
async def test_what_is_no_picture_is_refused_and_gone(idle_daemon: Daemon, make: Callable[[], bytes], why: str) -> None:
    data = make()
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await sends.put(idle_daemon, data)
    said = str(refusal.value.details())
    assert reason(refusal.value) == "BAD_INPUT" and why in said
    assert str(idle_daemon.home.root) not in said
    found = await sends.find(idle_daemon, data)
    assert not found.HasField("input") and found.received_bytes == 0


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([], "INVALID_FIELD"),
        ([Put()], "INVALID_FIELD"),
        ([Put(chunk=DATA)], "INVALID_FIELD"),
        ([sends.header(DATA), Put()], "INVALID_FIELD"),
        ([sends.header(DATA), sends.header(DATA)], "INVALID_FIELD"),
        ([sends.header(DATA), Put(chunk=DATA + b"x")], "INVALID_FIELD"),
        ([sends.header(DATA, 10), Put(chunk=DATA[10:])], "INVALID_FIELD"),
        ([sends.header(DATA, len(DATA) + 1)], "INVALID_FIELD"),
        ([sends.header(DATA), Put(chunk=bytes(len(DATA)))], "CORRUPT_FILE"),
        ([sends.header(DATA), Put(chunk=b"")], "CORRUPT_FILE"),
        ([Put(header=Put.Header(sha256="../../etc/passwd", size_bytes=3))], "INVALID_FIELD"),
        ([Put(header=Put.Header(sha256=SHA256.upper(), size_bytes=3))], "INVALID_FIELD"),
        ([Put(header=Put.Header(sha256=SHA256, size_bytes=10**12))], "BAD_INPUT"),
    ],
)
async def test_senders_that_do_not_keep_to_it(home: Home, parts: list[pb.PutInputRequest], expected: str) -> None:
    async with running(home) as daemon:
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await sends.send(daemon, parts)
        assert reason(refusal.value) == expected
        assert not (await sends.find(daemon, DATA)).HasField("input")


async def test_an_upload_that_was_cut_goes_on_even_after_kill_9(home: Home) -> None:
    async with running(home) as daemon:
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await sends.send(daemon, [sends.header(DATA), Put(chunk=DATA[:100])])
        assert reason(refusal.value) == "CORRUPT_FILE" and "did not come" in str(refusal.value.details())
        await daemon.stop(signal.SIGKILL)
    async with running(home) as daemon:
        found = await sends.find(daemon, DATA)
        assert not found.HasField("input") and found.received_bytes == 100
        made = await sends.send(daemon, [sends.header(DATA, 60), Put(chunk=DATA[60:])])  # not all need be believed
        assert made.sha256 == SHA256
        assert [path.name for path in home.paths.inputs_dir.iterdir()] == [SHA256]


async def test_what_is_here_is_not_waited_for(daemon: Daemon) -> None:
    await sends.put(daemon, DATA)
    assert (await sends.send(daemon, [sends.header(DATA)])).sha256 == SHA256


async def test_a_hash_that_is_none_is_not_looked_for(idle_daemon: Daemon) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await idle_daemon.inputs.FindInput(pb.FindInputRequest(sha256="../x"))
    assert (reason(refusal.value), field(refusal.value)) == ("INVALID_FIELD", "sha256")


async def test_df_tells_of_them_and_prune_removes_them(daemon: Daemon) -> None:
    await sends.put(daemon, DATA)
    usage = await daemon.daemon.GetDiskUsage(daemon_pb2.GetDiskUsageRequest())
    (held,) = [one for one in usage.held if one.what == "inputs"]
    assert (held.count, held.bytes) == (1, len(DATA))
    for dry_run in (True, False):
        asked = daemon_pb2.PruneRequest(what=["inputs"], older_than_s=0, dry_run=dry_run)
        assert [(one.count, one.bytes) for one in (await daemon.daemon.Prune(asked)).pruned] == [(1, len(DATA))]
    assert not (await sends.find(daemon, DATA)).HasField("input")


async def _good(paths: Sequence[Path]) -> AsyncIterator[PictureFindings]:
    for _ in paths:
        yield PictureFindings("", 96, 96, "", "image/png")


def service(database: Database, folder: Path, patience_s: float = HANG_S, **limits: int) -> InputService:
    return InputService(database, Contents(folder, "inputs"), _good, LimitSettings(**limits), patience_s=patience_s)


async def put(one: InputService, owner: str, data: bytes) -> Input:
    return await one.put(Upload(owner, sends.sha256_of(data), len(data), 0, _chunks(data)))


async def _chunks(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def test_naming_a_hash_gives_no_right_to_it(database: Database, tmp_path: Path) -> None:
    inputs = service(database, tmp_path / "inputs")
    await put(inputs, "ann", DATA)
    assert (await inputs.find("ann", "ann", SHA256)).input
    assert (await inputs.find("bob", "bob", SHA256)).input is None
    with pytest.raises(CraftError) as refusal:
        await inputs.use("bob", "bob", SHA256, "start")
    assert refusal.value.reason == "UNKNOWN_INPUT"
    assert (await inputs.find("", "local", SHA256)).input  # an admin sees everybody's
    assert (await inputs.use("", "local", SHA256, "start")).owner == "local"
    await put(inputs, "bob", DATA)  # who has the picture may send it
    assert (await inputs.find("bob", "bob", SHA256)).input
    await inputs.forget("ann")
    assert (await inputs.find("ann", "ann", SHA256)).input is None
    assert (await inputs.use("bob", "bob", SHA256, "start")).owner == "bob"


async def test_another_sees_nothing_of_a_cut_upload(database: Database, tmp_path: Path) -> None:
    inputs = service(database, tmp_path / "inputs")
    with pytest.raises(CraftError):
        await inputs.put(Upload("ann", SHA256, len(DATA), 0, _chunks(DATA[:50])))
    assert (await inputs.find("ann", "ann", SHA256)).received_bytes == 50
    assert (await inputs.find("bob", "bob", SHA256)).received_bytes == 0
    with pytest.raises(CraftError):
        await inputs.put(Upload("bob", SHA256, len(DATA), 50, _chunks(DATA[50:])))


async def test_few_cut_uploads_are_kept_and_all_go_with_their_owner(database: Database, tmp_path: Path) -> None:
    inputs = service(database, tmp_path / "inputs")
    for number in range(7):
        with pytest.raises(CraftError):
            data = picture(number)
            await inputs.put(Upload("ann", sends.sha256_of(data), len(data), 0, _chunks(data[:50])))
    assert len(list((tmp_path / "inputs").iterdir())) == 4
    await inputs.forget("ann")
    assert not list((tmp_path / "inputs").iterdir())


async def test_a_sender_that_says_nothing_is_left(database: Database, tmp_path: Path) -> None:
    async def silent() -> AsyncIterator[bytes]:
        yield DATA[:10]
        await asyncio.Event().wait()

    inputs = service(database, tmp_path / "inputs", patience_s=0.05)
    with pytest.raises(CraftError, match=r"nothing came for 0.05 s"):
        await inputs.put(Upload("ann", SHA256, len(DATA), 0, silent()))
    assert (await inputs.find("ann", "ann", SHA256)).received_bytes == 10


async def test_two_that_send_the_same_at_once(database: Database, tmp_path: Path) -> None:
    inputs = service(database, tmp_path / "inputs")
    made = await asyncio.gather(*(put(inputs, "ann", DATA) for _ in range(5)))
    assert {one.sha256 for one in made} == {SHA256}
    assert [path.name for path in (tmp_path / "inputs").iterdir()] == [SHA256]


def _job(state_of: str, owner: str = "ann") -> Job:
    start, mask = Start(SHA256, 0.5), Mask(sends.sha256_of(picture(2)), 4.0)
    spec = GenerateSpec("an apple", "", "flat", 64, 64, 1, 1.0, 7, 1, "Euler", start=start, mask=mask)
    return Job(state_of, owner, f"request-{state_of}", "", spec, 0.0)


async def _aged(database: Database, seconds: float) -> None:
    await database.run(lambda connection: connection.execute("UPDATE inputs SET use_time = use_time - ?", (seconds,)))


async def test_what_jobs_need_stays_and_a_day_longer(database: Database, tmp_path: Path) -> None:
    inputs = service(database, tmp_path / "inputs")
    for number in (1, 2, 3):
        await put(inputs, "ann", picture(number))
    await database.run(lambda connection: jobs.insert(connection, _job("one")))
    await _aged(database, 200_000)
    assert await inputs.forgettable(90_000) == (1, len(picture(3)))
    await inputs.sweep()
    assert {path.name for path in (tmp_path / "inputs").iterdir()} == {
        SHA256,
        sends.sha256_of(picture(2)),
    }
    await inputs.sweep(0)
    assert len(list((tmp_path / "inputs").iterdir())) == 2
    await database.run(lambda connection: connection.execute("UPDATE jobs SET state = 'SUCCEEDED'"))
    await inputs.sweep()  # it was in use until now
    assert len(list((tmp_path / "inputs").iterdir())) == 2
    await _aged(database, 100_000)
    await inputs.sweep()
    assert not list((tmp_path / "inputs").iterdir())


async def test_what_was_not_used_lately_makes_room(database: Database, tmp_path: Path) -> None:
    inputs = service(database, tmp_path / "inputs", max_inputs_bytes=3 * len(DATA) + 50)
    await database.run(lambda connection: jobs.insert(connection, _job("one")))
    await put(inputs, "ann", picture(1))  # which the job needs
    await _aged(database, 1000)
    await put(inputs, "ann", picture(3))
    await _aged(database, 1000)
    await put(inputs, "bob", picture(4))  # is none of hers
    for number in (5, 6):
        await put(inputs, "ann", picture(number))
    assert [bool((await inputs.find("ann", "ann", sends.sha256_of(picture(n)))).input) for n in (1, 3, 5, 6)] == [
        True,
        False,
        True,
        True,
    ]
    with pytest.raises(CraftError) as refusal:
        await put(inputs, "ann", picture(7))
    assert refusal.value.reason == "BAD_INPUT" and "the limit" in refusal.value.message


async def test_a_file_that_is_gone_is_asked_for_again(database: Database, tmp_path: Path) -> None:
    inputs = service(database, tmp_path / "inputs")
    await put(inputs, "ann", DATA)
    (tmp_path / "inputs" / SHA256).unlink()
    assert (await inputs.find("ann", "ann", SHA256)).input is None
    with pytest.raises(CraftError) as refusal:
        await inputs.file("ann", SHA256, "start picture")
    assert refusal.value.reason == "UNKNOWN_INPUT"
    await put(inputs, "ann", DATA)
    assert (await inputs.file("ann", SHA256, "start picture"))[1].read_bytes() == DATA


async def test_the_inspecting_process_says_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "it").write_bytes(png("RGBA"))
    (found,) = [one async for one in inspect_pictures([tmp_path / "it"])]
    assert (found.why, found.width, found.height, found.media_type, found.has_alpha) == ("", 40, 24, "image/png", True)
