"""LoRAs at the daemon: registered whole or not at all, found by their names, and never silently another."""

# ruff: noqa: ASYNC240 - these tests wait for the disk
from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import cast

import grpc
import grpc.aio
import pytest
from craft_protos import images_pb2, jobs_pb2, loras_pb2, loras_pb2_grpc
from craft_protos.loras_pb2 import ImportLoraRequest, Lora
from craftd.jobs.job import GenerateRequest, JobRequest, LoraWish

from tests.daemon.harness import Daemon, Home, details, field, reason, request, running
from tests.lora_files import kohya

Part = ImportLoraRequest


async def add(daemon: Daemon, path: Path, **fields: object) -> Lora:
    return await send(daemon, [Part(header=Part.Header(path=str(path), **fields))])  # type: ignore[arg-type]


async def upload(daemon: Daemon, path: Path, **fields: object) -> Lora:
    return await send(daemon, upload_parts(path, **fields))


def upload_parts(path: Path, **fields: object) -> list[Part]:
    data = path.read_bytes()
    header = Part.Header(upload=Part.Upload(file_name=path.name, size_bytes=len(data)), **fields)  # type: ignore[arg-type]
    return [Part(header=header), *(Part(chunk=data[start : start + 1000]) for start in range(0, len(data), 1000))]


async def send(daemon: Daemon, parts: list[Part]) -> Lora:
    return await asyncio.to_thread(_send, daemon.address, parts)


def _send(address: str, parts: list[Part]) -> Lora:
    """As the command does it: an asyncio client loses the answer that comes before it has sent everything."""
    with grpc.insecure_channel(address) as channel:
        *_, last = loras_pb2_grpc.LorasStub(channel).ImportLora(iter(parts))
    return last.lora


async def listed(daemon: Daemon, model: str = "") -> list[str]:
    answer = await daemon.loras.ListLoras(loras_pb2.ListLorasRequest(model=model))
    return [lora.name for lora in answer.loras]


async def find(daemon: Daemon, text: str) -> Lora:
    return await daemon.loras.GetLora(loras_pb2.GetLoraRequest(lora=text))


def use(lora: str, weight: float | None = None) -> jobs_pb2.LoraUse:
    return jobs_pb2.LoraUse(lora=lora, weight=weight)


async def refused(call: object) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.RpcError) as caught:
        await call  # type: ignore[misc]
    return cast(grpc.aio.AioRpcError, caught.value)


def hint(error: grpc.aio.AioRpcError) -> str:
    return dict(details(error)["ErrorInfo"].metadata)["hint"]  # type: ignore[attr-defined]


@pytest.fixture
def file(home: Home) -> Path:
    return kohya(home.root / "it.safetensors", metadata={"modelspec.trigger_phrase": "sks apple"})


@pytest.fixture
def other(home: Home) -> Path:
    return kohya(home.root / "other.safetensors", seed=9)


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
    async with asyncio.timeout(30):
        while list(daemon.home.paths.loras_dir.iterdir()):
            await daemon.status()
    assert await listed(daemon) == []


# Jobs


async def test_a_job_holds_what_was_resolved(daemon: Daemon, file: Path, other: Path) -> None:
    one, two = await add(daemon, file, weight=0.6), await add(daemon, other)
    job = await daemon.create("a cat <lora:other:-0.25>, red", loras=[use(one.sha256[:8])])
    job = await daemon.finish(job.id)
    assert job.generate.prompt == "a cat, red"
    resolved = [(one.lora, one.name, one.sha256, one.weight) for one in job.generate.loras]
    assert resolved == [(one.id, "it", one.sha256, 0.6), (two.id, "other", two.sha256, -0.25)]
    (image,) = job.images
    async for answer in daemon.images.GetImage(images_pb2.GetImageRequest(id=image.id, metadata_only=True)):
        if answer.HasField("image"):
            told = json.loads(answer.image.provenance)
    assert [(one["sha256"], one["weight"]) for one in told["loras"]] == [(one.sha256, 0.6), (two.sha256, -0.25)]
    assert told["lora_files"] == {one.sha256: "it.safetensors", two.sha256: "other.safetensors"}


async def test_jobs_are_taken_up_again_with_their_loras(home: Home, file: Path) -> None:
    async with running(home) as daemon:
        made = await add(daemon, file)
        job = await daemon.create("[held]", loras=[use("it", 0.5)])
        await daemon.stop(signal.SIGKILL)
    home.release()
    async with running(home) as daemon:
        done = await daemon.finish(job.id)
        assert done.state == jobs_pb2.JOB_STATE_SUCCEEDED
        assert [(one.lora, one.weight) for one in done.generate.loras] == [(made.id, 0.5)]


async def test_an_unknown_lora_gets_the_closest_names(daemon: Daemon, file: Path) -> None:
    """Row 7."""
    await add(daemon, file, name="watercolor")
    for call in (daemon.create(loras=[use("watercolour")]), daemon.create("x <lora:watercolour:1>")):
        error = await refused(call)
        assert (reason(error), field(error)) == ("UNKNOWN_LORA", "loras")
        assert hint(error) == "did you mean 'watercolor'?"


BAD_USES: list[tuple[str, dict[str, object], str]] = [
    ("a <lora:it:much> b", {}, "prompt"),
    ("a <lora:it:0.5:0.7> b", {}, "prompt"),
    ("a <lora:> b", {}, "prompt"),
    ("a <lora:it:0.5 b", {}, "prompt"),
    ("<lora:it:0.5>", {}, "prompt"),
    ("a", {"negative_prompt": "<lora:it:1>"}, "negative_prompt"),
    ("a <lora:it:1>", {"loras": [use("it", 0.5)]}, "loras"),
    ("a <lora:it:11>", {}, "loras"),
    ("a", {"loras": [use("it", float("inf"))]}, "loras"),
    ("a", {"loras": [use("")]}, "loras"),
    ("a", {"loras": [use(f"it{number}") for number in range(17)]}, "loras"),
    ("a", {"lora_missing": 9}, "lora_missing"),
]


async def test_bad_uses_are_named(daemon: Daemon, file: Path) -> None:
    await add(daemon, file)
    for prompt, fields, named in BAD_USES:
        error = await refused(daemon.create(prompt, **fields))
        assert (reason(error), field(error)) == ("INVALID_FIELD", named), prompt


async def test_trigger_words_are_added_where_they_lack(daemon: Daemon, file: Path, other: Path) -> None:
    await add(daemon, file)
    await add(daemon, other, trigger="in ink")
    uses = [use("it"), use("other")]
    for prompt, expected in (
        ("a cat", "a cat, sks apple, in ink"),
        ("a SKS apple", "a SKS apple, in ink"),
        ("<lora:it:1> <lora:other:1>", "sks apple, in ink"),
    ):
        loras = [] if "<" in prompt else uses
        plan = await daemon.jobs.PlanJob(request(prompt, loras=loras, trigger_words=True))
        assert (plan.generate.prompt, plan.generate.trigger_words) == (expected, False)
    plain = await daemon.jobs.PlanJob(request("a cat", loras=uses))
    assert plain.generate.prompt == "a cat"


async def test_loras_are_part_of_what_a_request_id_means(daemon: Daemon, file: Path) -> None:
    await add(daemon, file)
    made = await daemon.create(request_id="r1", loras=[use("it", 0.5)])
    assert (await daemon.create(request_id="r1", loras=[use("it", 0.5)])).id == made.id
    for fields in ({}, {"loras": [use("it", 0.6)]}, {"loras": [use("it", 0.5)], "lora_missing": 2}):
        assert reason(await refused(daemon.create(request_id="r1", **fields))) == "REQUEST_ID_CLASH"


def test_a_body_without_loras_hashes_as_it_did_before_there_were_any() -> None:
    before = {
        "generate": {
            "prompt": "x", "negative_prompt": "", "model": "", "width": None, "height": None, "steps": None,
            "guidance_scale": None, "seed": None, "count": 0, "sampler": "", "format": "", "deterministic": False,
            "indices": [],
        },
        "expire_time": None, "priority": 0, "lease": False,
    }  # fmt: skip
    expected = hashlib.sha256(json.dumps(before, sort_keys=True).encode()).hexdigest()
    assert JobRequest("r", GenerateRequest("x")).body_sha256 == expected
    assert JobRequest("r", GenerateRequest("x", loras=(LoraWish("it"),))).body_sha256 != expected


# Which model


@pytest.fixture
def models(make_home: Callable[..., Home]) -> Iterator[Home]:
    """Models of two architectures beside the configured one, of which nothing is known."""
    home = make_home()
    for name, width in (("one", 768), ("two", 1024), ("also-two", 1024)):
        shutil.copytree(home.paths.models_dir / "flat", home.paths.models_dir / name)
        config = {"sample_size": 8, "cross_attention_dim": width}
        (home.paths.models_dir / name / "unet" / "config.json").write_text(json.dumps(config))
    yield home


@pytest.fixture
async def two(models: Home) -> AsyncIterator[Daemon]:
    async with running(models) as daemon:
        for name, width in (("sd1", 768), ("sd2", 1024), ("unknown", 99)):
            await add(daemon, kohya(models.root / f"{name}.safetensors", width=width))
        yield daemon


async def test_a_lora_for_another_base_is_refused_with_both_names(two: Daemon) -> None:
    """Row 28, as far as it is known before the model is in memory."""
    error = await refused(two.create(model="two", loras=[use("sd1")]))
    assert (reason(error), error.code()) == ("LORA_MISMATCH", grpc.StatusCode.FAILED_PRECONDITION)
    assert str(error.details()) == "LoRA sd1 is for sd1, and the model two is sd2"
    skipped = await two.create(model="two", loras=[use("sd1")], lora_missing=jobs_pb2.LORA_MISSING_SKIP)
    assert skipped.generate.lora_missing == jobs_pb2.LORA_MISSING_SKIP
    for model, lora in (("one", "sd1"), ("one", "unknown"), ("flat", "sd1")):
        assert (await two.create(model=model, loras=[use(lora)])).id
    plan = await two.jobs.PlanJob(request(model="two", loras=[use("sd1"), use("sd2"), use("unknown")]))
    assert [one.fits for one in plan.loras] == [False, True, True]
    assert "is for sd1" in plan.loras[0].why_not and plan.loras[0].use.name == "sd1"


async def test_the_model_that_a_lora_is_for_is_taken(two: Daemon) -> None:
    for lora, expected in (("sd1", "one"), ("unknown", "flat")):
        assert (await two.create(loras=[use(lora)])).generate.model == expected
    assert reason(await refused(two.create(model="no", loras=[use("sd1")]))) == "UNKNOWN_MODEL"
    assert (await two.create(loras=[use("sd2")])).generate.model == "flat"  # of two that fit neither is meant
    assert (await two.create("a <lora:sd1:1>")).generate.model == "one"


async def test_lists_by_model(two: Daemon) -> None:
    assert await listed(two) == ["sd1", "sd2", "unknown"]
    assert await listed(two, "one") == ["sd1"]
    assert await listed(two, "also-two") == ["sd2"]
    assert await listed(two, "flat") == []
    assert reason(await refused(listed(two, "no"))) == "UNKNOWN_MODEL"


# Files that change


async def test_a_changed_or_lost_file_is_said_and_never_drawn_with(daemon: Daemon, file: Path) -> None:
    made = await add(daemon, file)
    os.utime(file, (1, 1))
    assert (await daemon.create(loras=[use("it")])).id  # only its look is another
    data = file.read_bytes()
    kohya(file, seed=77)
    error = await refused(daemon.create(loras=[use("it")]))
    assert reason(error) == "CORRUPT_FILE" and "has changed" in str(error.details()) and made.id in hint(error)
    plan = await daemon.jobs.PlanJob(request(loras=[use("it")]))
    assert not plan.loras[0].fits and "has changed" in plan.loras[0].why_not
    file.unlink()
    error = await refused(daemon.create(loras=[use("it")]))
    assert reason(error) == "NO_INPUT" and str(file) in str(error.details())
    file.write_bytes(data)
    assert (await daemon.finish((await daemon.create(loras=[use("it")])).id)).state == jobs_pb2.JOB_STATE_SUCCEEDED


async def test_a_lost_file_is_found_again_where_it_was_moved(daemon: Daemon, file: Path) -> None:
    made = await add(daemon, file)
    assert (await daemon.finish((await daemon.create(loras=[use("it")])).id)).state == jobs_pb2.JOB_STATE_SUCCEEDED
    moved = file.rename(file.with_name("moved.safetensors"))
    again = await add(daemon, moved)
    assert (again.id, again.name, again.source) == (made.id, "it", str(moved))
    assert (await daemon.finish((await daemon.create(loras=[use("it")])).id)).state == jobs_pb2.JOB_STATE_SUCCEEDED


@pytest.mark.parametrize(("change", "expected"), [("exchange", "CORRUPT_FILE"), ("remove", "UNKNOWN_LORA")])
async def test_what_changes_while_a_job_waits_fails_that_job(
    make_home: Callable[..., Home], change: str, expected: str
) -> None:
    home = make_home(CRAFT_WORKER_MAX_ROWS="1")
    path = kohya(home.root / "it.safetensors")
    async with running(home) as daemon:
        await add(daemon, path)
        first = await daemon.create("[held]", count=3)
        waiting = await daemon.create(loras=[use("it")])
        if change == "exchange":
            kohya(path, seed=5)
        else:
            await daemon.loras.DeleteLora(loras_pb2.DeleteLoraRequest(lora="it"))
        home.release()
        done = await daemon.finish(waiting.id)
        assert (done.state, done.error.reason) == (jobs_pb2.JOB_STATE_FAILED, expected)
        assert (await daemon.finish(first.id)).state == jobs_pb2.JOB_STATE_SUCCEEDED
