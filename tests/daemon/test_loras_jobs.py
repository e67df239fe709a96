"""LoRAs of jobs: resolved once, for a model that they fit, and never silently another."""

# ruff: noqa: ASYNC240 - these tests wait for the disk
from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import grpc
import grpc.aio
import pytest
from craft_protos import images_pb2, jobs_pb2, loras_pb2
from craft_protos.generate import GenerateRequest
from craft_protos.job_request import JobRequest
from craft_protos.lora import LoraRef
from craftd.jobs.job import body_sha256

from tests.daemon.harness import Daemon, field, reason, request, running
from tests.daemon.loras import add, hint, listed, refused, use
from tests.home import Home
from tests.lora_files import kohya


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
    ("a <lora:it:0.5:lbw=1,0> b", {}, "prompt"),
    ("a <lora:it:0.5:lbw=FLUXALL> b", {}, "loras"),
    ("a <lora:it:0.5:start=0.7:stop=0.7> b", {}, "loras"),
    ("a <lora:it:0.5:start=900> b", {}, "loras"),
    ("a", {"loras": [jobs_pb2.LoraUse(lora="it", start=1.5)]}, "loras"),
    ("a", {"loras": [jobs_pb2.LoraUse(lora="it", text_weight=11)]}, "loras"),
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
    assert body_sha256(JobRequest("r", GenerateRequest("x", count=0))) == expected
    assert body_sha256(JobRequest("r", GenerateRequest("x", count=0, loras=(LoraRef("it"),)))) != expected


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


async def test_the_callers_default_takes_the_place_of_the_daemons(two: Daemon) -> None:
    """What was configured after the daemon's start, or where the caller is."""
    chosen = {"sd2": "also-two", "unknown": "also-two", "sd1": "one"}
    for lora, expected in chosen.items():
        job = await two.create(loras=[use(lora)], default_model="also-two")
        assert (job.generate.model, job.generate.default_model) == (expected, "")
    assert (await two.create(model="two", loras=[use("sd2")], default_model="also-two")).generate.model == "two"
    assert reason(await refused(two.create(loras=[use("unknown")], default_model="gone"))) == "UNKNOWN_MODEL"


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
