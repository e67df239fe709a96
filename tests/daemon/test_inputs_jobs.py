"""Jobs that begin from pictures: the right bytes reach the worker, and stay until the job has ended."""

from __future__ import annotations

import io
import json
import signal

import grpc.aio
import pytest
from craft_protos import daemon_pb2, jobs_pb2
from PIL import Image

from tests.daemon import sends
from tests.daemon.harness import Daemon, field, reason, running
from tests.home import Home
from tests.pictures import picture

COLOUR = (200, 100, 40)


def plain(colour: tuple[int, int, int] = COLOUR, size: tuple[int, int] = (64, 48), orientation: int = 1) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stream = io.BytesIO()
    Image.new("RGB", size, colour).save(stream, "PNG", exif=exif)
    return stream.getvalue()


def start(data: bytes, strength: float | None = None) -> jobs_pb2.Start:
    return jobs_pb2.Start(sha256=sends.sha256_of(data), strength=strength)


def mask(data: bytes, **more: float) -> jobs_pb2.Mask:
    return jobs_pb2.Mask(sha256=sends.sha256_of(data), **more)  # type: ignore[arg-type]


async def drawn(daemon: Daemon, job: jobs_pb2.Job) -> Image.Image:
    done = await daemon.finish(job.id)
    assert done.state == jobs_pb2.JOB_STATE_SUCCEEDED, done.error
    opened = Image.open(io.BytesIO(await daemon.file(done.images[0].id)))
    assert opened.size == (done.images[0].width, done.images[0].height)
    return opened


async def test_the_workers_picture_follows_from_the_start(daemon: Daemon) -> None:
    data = plain()
    await sends.put(daemon, data)
    made = await drawn(daemon, await daemon.create(start=start(data, 0.0), seed=0))
    assert made.getpixel((5, 5)) == COLOUR and made.size == (64, 48)
    assert json.loads(made.text["craft"])["start"] == {  # type: ignore[attr-defined]
        "sha256": sends.sha256_of(data),
        "strength": 0.0,
        "fit": "crop",
    }
    half = await drawn(daemon, await daemon.create(start=start(data, 0.5), seed=0))
    assert half.getpixel((5, 5)) == (100, 50, 20)


async def test_what_was_not_sent_is_not_drawn_from(daemon: Daemon) -> None:
    data = plain()
    await sends.put(daemon, picture(1))
    for more, named in (({"start": start(data)}, "start"), ({"start": start(picture(1)), "mask": mask(data)}, "mask")):
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await daemon.create(**more)
        assert reason(refusal.value) == "UNKNOWN_INPUT"
        assert str(refusal.value.details()).startswith(f"{named}: ")


async def test_a_plan_needs_the_picture_and_tells_what_follows(daemon: Daemon) -> None:
    data = plain(size=(100, 50))
    await sends.put(daemon, data)
    spec = jobs_pb2.GenerateSpec(prompt="x", start=start(data))
    told = (await daemon.jobs.PlanJob(jobs_pb2.CreateJobRequest(request_id="p", generate=spec))).generate
    assert told.start.strength == 0.8 and told.start.fit == jobs_pb2.FIT_CROP
    assert told.width > told.height > 0


async def test_a_wrong_field_is_told_by_its_whole_name(daemon: Daemon) -> None:
    data = plain()
    await sends.put(daemon, data)
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await daemon.create(start=start(data, 2.0))
    assert (reason(refusal.value), field(refusal.value)) == ("INVALID_FIELD", "start.strength")


async def test_a_job_goes_on_with_its_picture_after_kill_9(home: Home) -> None:
    data = plain()
    async with running(home) as daemon:
        await sends.put(daemon, data)
        job = await daemon.create("x [held]", start=start(data, 0.0))
        await daemon.see(job.id, "loading")
        await daemon.stop(signal.SIGKILL)
    home.rows("UPDATE inputs SET use_time = use_time - 200000")
    home.release()
    async with running(home) as daemon:
        assert (await drawn(daemon, job)).getpixel((5, 5)) == COLOUR


async def test_a_waiting_job_whose_picture_is_gone_fails_and_says_which(home: Home) -> None:
    data = plain()
    async with running(home) as daemon:
        await sends.put(daemon, data)
        job = await daemon.create("x [held]", start=start(data))
        await daemon.stop(signal.SIGKILL)
    (home.paths.inputs_dir / sends.sha256_of(data)).unlink()
    home.release()
    async with running(home) as daemon:
        done = await daemon.finish(job.id)
        assert (done.state, done.error.reason) == (jobs_pb2.JOB_STATE_FAILED, "UNKNOWN_INPUT")
        assert sends.sha256_of(data)[:12] in done.error.message and done.error.hint


async def test_what_an_unfinished_job_needs_is_not_pruned(daemon: Daemon) -> None:
    data, other = plain(), picture(1)
    for one in (data, other):
        await sends.put(daemon, one)
    job = await daemon.create("x [held]", start=start(data, 0.0))
    asked = daemon_pb2.PruneRequest(what=["inputs"], older_than_s=0)
    assert [(one.count, one.bytes) for one in (await daemon.daemon.Prune(asked)).pruned] == [(1, len(other))]
    daemon.home.release()
    assert (await drawn(daemon, job)).getpixel((5, 5)) == COLOUR
    assert [one.count for one in (await daemon.daemon.Prune(asked)).pruned] == [1]


async def test_a_request_that_is_repeated_is_the_same_job_though_its_picture_is_gone(daemon: Daemon) -> None:
    data = plain()
    await sends.put(daemon, data)
    first = await daemon.create(request_id="once", start=start(data), seed=1)
    await daemon.finish(first.id)
    await daemon.daemon.Prune(daemon_pb2.PruneRequest(what=["inputs"], older_than_s=0))
    assert (await daemon.create(request_id="once", start=start(data), seed=1)).id == first.id


async def test_a_public_picture_does_not_say_what_it_was_made_from(daemon: Daemon) -> None:
    data = plain()
    await sends.put(daemon, data)
    spec = jobs_pb2.GenerateSpec(prompt="x", steps=3, start=start(data))
    job = await daemon.jobs.CreateJob(jobs_pb2.CreateJobRequest(request_id="pub", generate=spec, public=True))
    made = await drawn(daemon, job)
    told = json.loads(made.text["craft"])  # type: ignore[attr-defined]
    assert told["start"] == {"strength": 0.8, "fit": "crop"}
    assert sends.sha256_of(data) not in json.dumps(told)
