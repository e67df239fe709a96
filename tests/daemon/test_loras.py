"""LoRAs at the daemon: registered whole or not at all, found by their names, and never silently another."""

# ruff: noqa: ASYNC240 - these tests wait for the disk
from __future__ import annotations

import asyncio
import hashlib
import shutil
import signal
from pathlib import Path

import grpc
import grpc.aio
from craft_protos import jobs_pb2, loras_pb2

from tests.daemon.harness import Daemon, field, reason, running
from tests.daemon.loras import Part, add, find, hint, listed, refused, send, upload, upload_parts, use
from tests.home import HANG_S, Home
from tests.lora_files import kohya

# Adding, finding, editing


async def test_a_file_is_linked_in_place_and_outlives_the_daemon(home: Home, file: Path) -> None:
    async with running(home) as daemon:
        made = await add(daemon, file, weight=0.7)
        sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
        assert (made.name, made.base, made.rank, made.layers, made.format) == ("it", "pocket", 4, 1, "kohya")
        assert (made.sha256, made.id, made.autov2) == (sha256, sha256[:8], sha256[:10])
        assert (made.weight, made.trigger, made.source) == (0.7, "sks apple", str(file))
        assert not home.paths.loras_dir.exists()
        again = await add(daemon, file, name="another")
        assert (again.id, again.name) == (made.id, "it")
        copy = Path(shutil.copy(file, home.root / "copy.safetensors"))
        assert (await add(daemon, copy)).id == made.id
    async with running(home) as daemon:
        kept = await find(daemon, "it")
        assert (kept.id, kept.weight, dict(kept.metadata)) == (made.id, made.weight, dict(made.metadata))
        await daemon.loras.DeleteLora(loras_pb2.DeleteLoraRequest(lora="it"))
        assert await listed(daemon) == []
        assert file.exists()


async def test_every_name_finds_it(daemon: Daemon, file: Path, other: Path) -> None:
    one, _ = await add(daemon, file, name="red apple"), await add(daemon, other)
    for text in (
        one.id,
        "red apple",
        one.sha256,
        one.sha256[:6],
        one.autov2.upper(),
        one.ss_hash[:12],
        "it",
        file.name,
    ):
        assert (await find(daemon, text)).id == one.id
    error = await refused(find(daemon, "red aple"))
    assert (reason(error), error.code(), hint(error)) == (
        "UNKNOWN_LORA",
        grpc.StatusCode.NOT_FOUND,
        "did you mean 'red apple'?",
    )
    assert reason(await refused(find(daemon, one.sha256[:3]))) == "UNKNOWN_LORA"


async def test_a_file_name_of_two_is_ambiguous(daemon: Daemon, file: Path) -> None:
    folder = daemon.home.root / "folder"
    folder.mkdir()
    await add(daemon, file, name="one")
    await add(daemon, kohya(folder / file.name, seed=5), name="two")
    error = await refused(find(daemon, file.name))
    assert reason(error) == "AMBIGUOUS_ID" and "one, two" in str(error.details())


async def test_names_are_unique_and_editable(daemon: Daemon, file: Path, other: Path) -> None:
    one = await add(daemon, file)
    error = await refused(add(daemon, other, name="it"))
    assert (reason(error), field(error)) == ("NAME_TAKEN", "name")
    assert reason(await refused(add(daemon, other, name=one.id))) == "NAME_TAKEN"
    two = await add(daemon, other)
    update = loras_pb2.UpdateLoraRequest(lora=two.id, name="second", weight=-0.5, trigger="")
    changed = await daemon.loras.UpdateLora(update)
    assert (changed.name, changed.weight, changed.trigger) == ("second", -0.5, "")
    clash = daemon.loras.UpdateLora(loras_pb2.UpdateLoraRequest(lora="second", name="it"))
    assert reason(await refused(clash)) == "NAME_TAKEN"
    assert await listed(daemon) == ["it", "second"]


async def test_bad_wishes_are_named(daemon: Daemon, file: Path) -> None:
    wrong: list[tuple[dict[str, object], str]] = [
        ({"name": "a:b"}, "name"),
        ({"name": "<lora:x>"}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"weight": float("nan")}, "weight"),
        ({"weight": 10.5}, "weight"),
        ({"trigger": "x" * 501}, "trigger"),
        ({"trigger": "a\x1b[31m"}, "trigger"),
    ]
    for fields, named in wrong:
        error = await refused(add(daemon, file, **fields))
        assert (reason(error), field(error)) == ("INVALID_FIELD", named)
    assert await listed(daemon) == []


async def test_paths_that_are_no_lora(daemon: Daemon, file: Path) -> None:
    root = daemon.home.root
    (root / "empty").mkdir()
    (root / "one").mkdir()
    shutil.copy(file, root / "one" / "pytorch_lora_weights.safetensors")
    for path, expected in (
        (Path("it.safetensors"), "INVALID_FIELD"),
        (root / "no.safetensors", "NO_INPUT"),
        (root / "empty", "BAD_DATA"),
        (Path("/dev/zero"), "UNSAFE_PATH"),
    ):
        assert reason(await refused(add(daemon, path))) == expected
    assert (await add(daemon, root / "one")).name == "one"


async def test_a_refused_file_leaves_nothing(daemon: Daemon) -> None:
    page = daemon.home.root / "page.safetensors"
    page.write_text("<!DOCTYPE html>")
    for call in (add(daemon, page), upload(daemon, page)):
        error = await refused(call)
        assert reason(error) == "CORRUPT_FILE" and "'page.safetensors'" in str(error.details())
    assert await listed(daemon) == [] and list(daemon.home.paths.loras_dir.iterdir()) == []


# Uploads


async def test_an_upload_is_stored_and_goes_with_its_lora(daemon: Daemon, file: Path) -> None:
    made = await upload(daemon, file, name="sent")
    (stored,) = daemon.home.paths.loras_dir.iterdir()
    assert stored.name == f"{made.sha256}.safetensors" and stored.read_bytes() == file.read_bytes()
    assert (made.file_name, made.source) == ("it.safetensors", "upload")
    assert (await upload(daemon, file)).id == made.id
    job = await daemon.finish((await daemon.create(loras=[use("sent")])).id)
    assert job.state == jobs_pb2.JOB_STATE_SUCCEEDED
    await daemon.loras.DeleteLora(loras_pb2.DeleteLoraRequest(lora="sent"))
    assert list(daemon.home.paths.loras_dir.iterdir()) == []


async def test_wrong_uploads(daemon: Daemon, file: Path) -> None:
    parts = upload_parts(file)
    short, long = parts[:-1], [*parts, Part(chunk=b"more")]
    nameless = upload_parts(file)
    nameless[0].header.upload.file_name = "../.."
    huge = [Part(header=Part.Header(upload=Part.Upload(file_name="x.safetensors", size_bytes=1 << 60)))]
    for wrong, expected in (
        (short, "CORRUPT_FILE"),
        (long, "CORRUPT_FILE"),
        (parts[1:], "INVALID_FIELD"),
        ([], "INVALID_FIELD"),
        ([Part(header=Part.Header(name="x"))], "INVALID_FIELD"),
        ([parts[0], parts[0]], "INVALID_FIELD"),
        (nameless, "INVALID_FIELD"),
        (huge, "INVALID_FIELD"),
    ):
        assert reason(await refused(send(daemon, wrong))) == expected
    folder = daemon.home.paths.loras_dir
    assert await listed(daemon) == [] and (not folder.exists() or list(folder.iterdir()) == [])
    assert (await upload(daemon, file)).name == "it"


async def half_sent(daemon: Daemon, file: Path) -> grpc.aio.StreamStreamCall[Part, loras_pb2.ImportLoraEvent]:
    """An upload that stops in the middle, once the daemon has some of it."""
    call = daemon.loras.ImportLora()
    for part in upload_parts(file)[:3]:
        await call.write(part)
    event = await call.read()
    assert isinstance(event, loras_pb2.ImportLoraEvent) and event.progress.doing == "receiving"
    return call


async def test_a_daemon_killed_amid_an_upload_keeps_no_torn_file(home: Home, file: Path) -> None:
    async with running(home) as daemon:
        await half_sent(daemon, file)
        assert len(list(home.paths.loras_dir.iterdir())) == 1
        await daemon.stop(signal.SIGKILL)
    strangers = home.paths.loras_dir / "mine.safetensors"
    strangers.touch()
    rowless = home.paths.loras_dir / f"{'0' * 64}.safetensors"  # killed before its row, or the database is older
    rowless.write_bytes(b"whole")
    async with running(home) as daemon:
        assert await listed(daemon) == []
        orphans = home.paths.loras_dir / "orphaned"
        assert set(home.paths.loras_dir.iterdir()) == {strangers, orphans}
        assert (orphans / rowless.name).read_bytes() == b"whole"
        assert (await upload(daemon, file)).name == "it"


async def test_a_caller_who_leaves_amid_an_upload_leaves_nothing(daemon: Daemon, file: Path) -> None:
    call = await half_sent(daemon, file)
    call.cancel()
    async with asyncio.timeout(HANG_S):
        while list(daemon.home.paths.loras_dir.iterdir()):
            await daemon.status()
    assert await listed(daemon) == []
