"""Jobs through the socket: made, watched, refused, cancelled, resumed."""

from __future__ import annotations

import asyncio
import math
import time
from typing import Any

import grpc
import grpc.aio
import pytest
from craft_protos import images_pb2, jobs_pb2, models_pb2
from craft_protos.jobs_pb2 import CancelJobRequest, GetJobRequest, ListJobsRequest, WatchJobRequest
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2

from tests.daemon.harness import FINAL, Daemon, details, field, is_whole, reason, request, running
from tests.home import Home

RpcError = grpc.aio.AioRpcError


async def test_a_job_is_drawn_with_the_models_defaults(daemon: Daemon) -> None:
    made = await daemon.jobs.CreateJob(
        jobs_pb2.CreateJobRequest(request_id="r", generate=jobs_pb2.GenerateSpec(prompt="a red apple", count=3))
    )
    job = await daemon.finish(made.id)
    spec = job.generate
    assert (spec.width, spec.height, spec.sampler, spec.model) == (64, 64, "DPM++ 2M Karras", "flat")
    assert 0 <= spec.seed < 2**53 and spec.steps > 0 and spec.guidance_scale == 7.5
    assert job.state == jobs_pb2.JOB_STATE_SUCCEEDED
    assert [(image.index, image.seed) for image in job.images] == [(n, spec.seed + n) for n in range(3)]
    assert all([is_whole(await daemon.file(image.id)) for image in job.images])
    assert 0 < job.timings.denoise_s < job.timings.total_s


async def test_a_watcher_hears_the_whole_story_in_order(daemon: Daemon) -> None:
    job = await daemon.create("an apple [held]", steps=4)
    kinds: list[str] = []
    async for event in daemon.jobs.WatchJob(WatchJobRequest(id=job.id, preview_every=2)):
        kind = event.WhichOneof("event")
        assert kind is not None
        kinds.append(kind)
        if kind == "snapshot":
            daemon.home.release()
        if kind == "step" and event.step.step == 4:
            assert event.step.preview.startswith(b"\xff\xd8") and event.step.of == 4
    assert kinds[0] == "snapshot" and kinds[-1] == "finished" and kinds[-2] == "image"
    assert [kind for kind in kinds if kind in ("started", "image", "finished")] == ["started", "image", "finished"]


async def test_the_same_request_makes_one_job(daemon: Daemon) -> None:
    asked = request("an apple", request_id="same")
    jobs = await asyncio.gather(*(daemon.jobs.CreateJob(asked) for _ in range(8)))
    assert len({job.id for job in jobs}) == 1
    again = await daemon.jobs.CreateJob(asked)
    assert again.id == jobs[0].id and again.generate.seed == jobs[0].generate.seed
    with pytest.raises(RpcError) as refused:
        await daemon.create("a pear", request_id="same")
    assert (reason(refused.value), refused.value.code()) == ("REQUEST_ID_CLASH", grpc.StatusCode.ALREADY_EXISTS)


@pytest.mark.parametrize(
    ("fields", "at_fault"),
    [
        ({"steps": 0}, "steps"),
        ({"steps": 1001}, "steps"),
        ({"guidance_scale": math.nan}, "guidance_scale"),
        ({"guidance_scale": math.inf}, "guidance_scale"),
        ({"guidance_scale": -1.0}, "guidance_scale"),
        ({"width": 65536, "height": 65536}, "width"),
        ({"width": 4096, "height": 4097}, "height"),
        ({"width": 65}, "width"),
        ({"width": 0}, "width"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**53 - 1, "count": 2}, "seed"),
        ({"count": 257}, "count"),
        ({"indices": [1]}, "indices"),
        ({"indices": [0, 0]}, "indices"),
        ({"sampler": "Eulr"}, "sampler"),
        ({"format": 99}, "format"),
        ({"priority": 99}, "priority"),
        ({"prompt": "  "}, "prompt"),
        ({"prompt": "x" * 20_001}, "prompt"),
        ({"prompt": "a\x00b"}, "prompt"),
        ({"negative_prompt": "a\x1bb"}, "negative_prompt"),
        ({"prompt": "😀" * 6_000, "format": 2}, "prompt"),
        ({"request_id": ""}, "request_id"),
        ({"request_id": "a b"}, "request_id"),
        ({"request_id": "x" * 65}, "request_id"),
        ({"model": "flatt"}, "model"),
    ],
)
async def test_bad_fields_are_named_and_no_device_is_touched(
    idle_daemon: Daemon, fields: dict[str, object], at_fault: str
) -> None:
    with pytest.raises(RpcError) as refused:
        await idle_daemon.create(**{"prompt": "an apple", **fields})  # type: ignore[arg-type]
    assert field(refused.value) == at_fault
    assert refused.value.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND)
    status = await idle_daemon.status()
    assert not status.workers and not status.queued


async def test_a_missing_spec_is_named(idle_daemon: Daemon) -> None:
    with pytest.raises(RpcError) as refused:
        await idle_daemon.jobs.CreateJob(jobs_pb2.CreateJobRequest(request_id="r"))
    assert field(refused.value) == "generate"


async def test_an_unknown_model_gets_the_closest_names(idle_daemon: Daemon) -> None:
    with pytest.raises(RpcError) as refused:
        await idle_daemon.create(model="flatt")
    info = details(refused.value)["ErrorInfo"]
    assert isinstance(info, error_details_pb2.ErrorInfo)
    assert (info.reason, info.domain) == ("UNKNOWN_MODEL", "craft") and "'flat'" in info.metadata["hint"]


async def test_a_full_queue_says_when_to_come_again(make_home: type[Home]) -> None:
    home = make_home(CRAFT_DAEMON_QUEUE_LIMIT="2", CRAFT_WORKER_MAX_ROWS="1")
    async with running(home) as daemon:
        first = await daemon.create("[held]")
        await daemon.has_begun(first.id)
        second = await daemon.create("[held]")  # the one that the worker has in store
        await daemon.see(second.id, "snapshot")
        jobs = [first, second]
        with pytest.raises(RpcError) as refused:
            for _ in range(4):
                jobs.append(await daemon.create("[held]"))
        assert (reason(refused.value), refused.value.code()) == ("QUEUE_FULL", grpc.StatusCode.RESOURCE_EXHAUSTED)
        retry = details(refused.value)["RetryInfo"]
        assert isinstance(retry, error_details_pb2.RetryInfo) and retry.retry_delay.seconds >= 1
        home.release()
        ended = await asyncio.gather(*(daemon.finish(job.id) for job in jobs))
        assert {job.state for job in ended} == {jobs_pb2.JOB_STATE_SUCCEEDED}
        await daemon.finish((await daemon.create()).id)


async def test_a_job_whose_time_has_passed_is_not_drawn(daemon: Daemon) -> None:
    past = Timestamp(seconds=int(time.time()) - 1)
    job = await daemon.finish((await daemon.create(expire_time=past)).id)
    assert (job.state, job.error.reason) == (jobs_pb2.JOB_STATE_FAILED, "EXPIRED") and not job.images
    assert not (await daemon.status()).workers


async def test_late_jobs_are_not_drawn_whatever_comes_with_them(daemon: Daemon) -> None:
    """Their time is looked at when they are handed over: others' turns, in which they come, are long begun."""
    await daemon.finish((await daemon.create()).id)  # a worker is there
    past = Timestamp(seconds=int(time.time()) - 1)

    async def ends(is_late: bool) -> tuple[int, str]:
        job = await daemon.finish((await daemon.create(**({"expire_time": past} if is_late else {}))).id)
        return job.state, job.error.reason

    ended = await asyncio.gather(*(ends(number % 2 == 1) for number in range(60)))
    assert set(ended[::2]) == {(jobs_pb2.JOB_STATE_SUCCEEDED, "")}
    assert set(ended[1::2]) == {(jobs_pb2.JOB_STATE_FAILED, "EXPIRED")}


async def test_cancelling_a_running_job_frees_the_worker(daemon: Daemon) -> None:
    job = await daemon.create("[held]", count=4)
    await daemon.has_begun(job.id)
    cancelled = await daemon.jobs.CancelJob(CancelJobRequest(id=job.id))
    assert cancelled.state == jobs_pb2.JOB_STATE_CANCELLED and cancelled.error.reason == "CANCELLED"
    assert (await daemon.finish((await daemon.create()).id)).state == jobs_pb2.JOB_STATE_SUCCEEDED


async def test_a_finished_job_cannot_be_cancelled_and_keeps_its_image(daemon: Daemon) -> None:
    job = await daemon.finish((await daemon.create()).id)
    with pytest.raises(RpcError) as refused:
        await daemon.jobs.CancelJob(CancelJobRequest(id=job.id))
    assert (reason(refused.value), refused.value.code()) == ("JOB_FINISHED", grpc.StatusCode.FAILED_PRECONDITION)
    assert is_whole(await daemon.file(job.images[0].id))


LEASE_S = 0.3


async def test_a_leased_job_ends_with_its_watcher(make_home: type[Home]) -> None:
    async with running(make_home(CRAFT_DAEMON_LEASE_S=str(LEASE_S))) as daemon:
        kept, watch = await _leased(daemon)
        job = await daemon.create("[held]", lease=True)
        while (ended := await daemon.jobs.GetJob(GetJobRequest(id=job.id))).state not in FINAL:
            continue
        assert (ended.state, ended.error.reason) == (jobs_pb2.JOB_STATE_CANCELLED, "CANCELLED")
        still = await daemon.jobs.GetJob(GetJobRequest(id=kept.id))
        assert still.state in (jobs_pb2.JOB_STATE_QUEUED, jobs_pb2.JOB_STATE_RUNNING)
        daemon.home.release()
        assert (await daemon.finish(kept.id)).state == jobs_pb2.JOB_STATE_SUCCEEDED
        watch.cancel()


async def _leased(daemon: Daemon) -> tuple[jobs_pb2.Job, Any]:
    """A job, and its watcher, who came in time for sure: a busy machine may take longer than the lease for that."""
    while True:
        begun = time.monotonic()
        job = await daemon.create("[held]", lease=True)
        watch = daemon.jobs.WatchJob(WatchJobRequest(id=job.id))
        await watch.read()
        if time.monotonic() - begun < LEASE_S:
            return job, watch
        watch.cancel()


async def test_a_failing_job_says_why(daemon: Daemon) -> None:
    job = await daemon.finish((await daemon.create("[fail]")).id)
    assert (job.state, job.error.reason) == (jobs_pb2.JOB_STATE_FAILED, "JOB_FAILED")
    assert job.error.message == "failed on request" and job.error.hint


async def test_lists_go_page_by_page(daemon: Daemon) -> None:
    made = [(await daemon.finish((await daemon.create(count=2)).id)).id for _ in range(5)]
    seen: list[str] = []
    token = ""
    while True:
        page = await daemon.jobs.ListJobs(ListJobsRequest(page_size=2, page_token=token))
        seen += [job.id for job in page.jobs]
        token = page.next_page_token
        if not token:
            break
    assert seen == made[::-1]
    failed = await daemon.jobs.ListJobs(ListJobsRequest(states=[jobs_pb2.JOB_STATE_FAILED]))
    assert not failed.jobs
    images = await daemon.images.ListImages(images_pb2.ListImagesRequest(job_id=made[0]))
    assert {image.index for image in images.images} == {0, 1} and images.images[0].prompt
    with pytest.raises(RpcError) as refused:
        await daemon.jobs.ListJobs(ListJobsRequest(page_token="later"))
    assert field(refused.value) == "page_token"


async def test_ids_may_be_shortened_until_they_are_ambiguous(daemon: Daemon) -> None:
    made = [(await daemon.create()).id for _ in range(40)]  # more than there are first letters
    assert (await daemon.jobs.GetJob(GetJobRequest(id=made[0][:12]))).id == made[0]
    letter = next(one[0] for one in made if sum(other[0] == one[0] for other in made) > 1)
    with pytest.raises(RpcError) as refused:
        await daemon.jobs.GetJob(GetJobRequest(id=letter))
    assert reason(refused.value) == "AMBIGUOUS_ID"
    for nonsense in ("", "zzzzzzzzzzzzzzz", "%", "a" * 5000):
        with pytest.raises(RpcError) as refused:
            await daemon.jobs.GetJob(GetJobRequest(id=nonsense))
        assert (reason(refused.value), refused.value.code()) == ("UNKNOWN_JOB", grpc.StatusCode.NOT_FOUND)


async def test_a_deleted_image_is_gone_with_its_file(daemon: Daemon) -> None:
    job = await daemon.finish((await daemon.create()).id)
    image_id = job.images[0].id
    await daemon.images.DeleteImage(images_pb2.DeleteImageRequest(id=image_id))
    assert not list(daemon.home.paths.images_dir.iterdir())
    with pytest.raises(RpcError) as refused:
        await daemon.file(image_id)
    assert reason(refused.value) == "UNKNOWN_IMAGE"


async def test_a_plan_changes_nothing(idle_daemon: Daemon) -> None:
    plan = await idle_daemon.jobs.PlanJob(request(count=4, width=128))
    assert (plan.generate.width, plan.generate.count, plan.model_loaded) == (128, 4, False)
    assert plan.load_bytes > 0 and not (await idle_daemon.jobs.ListJobs(ListJobsRequest())).jobs


async def test_only_the_indices_asked_for_are_drawn(daemon: Daemon) -> None:
    job = await daemon.finish((await daemon.create(count=5, seed=100, indices=[3])).id)
    assert [(image.index, image.seed) for image in job.images] == [(3, 103)]


async def test_models_are_listed_loaded_and_unloaded(daemon: Daemon) -> None:
    models = (await daemon.models.ListModels(models_pb2.ListModelsRequest())).models
    model = next(one for one in models if one.name == "flat")  # pocket may be there too
    assert (model.name, model.family, model.precision, model.defaults.width) == ("flat", "sd", "fp16", 64)
    loaded = await daemon.models.LoadModel(models_pb2.LoadModelRequest(name="flat"))
    assert list(loaded.loaded_on) == ["cpu"] and len(loaded.sha256) == 64
    (worker,) = (await daemon.status()).workers
    assert list(worker.models) == ["flat"]
    unloaded = await daemon.models.UnloadModel(models_pb2.UnloadModelRequest(name="flat"))
    assert not unloaded.loaded_on and not (await daemon.status()).workers


async def test_keep_alive_0_is_now(daemon: Daemon) -> None:
    await daemon.models.LoadModel(models_pb2.LoadModelRequest(name="flat", keep_alive_s=0))
    assert (await daemon.logged("model unloaded"))["model"] == "flat"


async def test_an_idle_model_is_unloaded_and_its_worker_ended(make_home: type[Home]) -> None:
    async with running(make_home(CRAFT_DAEMON_KEEP_ALIVE_S="0")) as daemon:
        await daemon.finish((await daemon.create()).id)
        assert (await daemon.logged("worker ended"))["why"] == "idle"
        await daemon.finish((await daemon.create()).id)
