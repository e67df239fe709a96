"""Train jobs: durable, watched, resumed from their checkpoint, served beside what is drawn, ended with a LoRA."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable

import grpc.aio
import pytest
from craft_protos import (
    jobs_pb2,
    jobs_pb2_grpc,
    keys_pb2,
    keys_pb2_grpc,
    loras_pb2,
    training_pb2,
    training_pb2_grpc,
)

from tests.daemon import trains
from tests.daemon.harness import Daemon, field, reason, running
from tests.home import Home
from tests.pictures import picture, pictures

SUCCEEDED, QUEUED = jobs_pb2.JOB_STATE_SUCCEEDED, jobs_pb2.JOB_STATE_QUEUED


async def test_a_training_ends_with_its_lora(daemon: Daemon) -> None:
    job = await trains.train(
        daemon, name="cat", trigger="sks cat", sample_prompts=["sks cat", "a cat"], sample_every=5, format="kohya"
    )
    assert job.WhichOneof("spec") == "train"
    assert (job.train.rank, job.train.alpha, job.train.model, job.train.format) == (16, 16, "flat", "kohya")
    kinds: list[str] = []
    samples: list[training_pb2.TrainingSample] = []
    async for event in daemon.jobs.WatchJob(jobs_pb2.WatchJobRequest(id=job.id)):
        kinds.append(event.WhichOneof("event") or "")
        if event.HasField("sample"):
            samples.append(event.sample)
        if event.HasField("finished"):
            done = event.finished.job
    assert kinds[0] == "snapshot" and "training" in kinds
    assert done.state == SUCCEEDED, done.error
    lora = await daemon.loras.GetLora(loras_pb2.GetLoraRequest(lora="cat"))
    assert (lora.id, lora.trigger, lora.format, lora.rank) == (done.lora, "sks cat", "kohya", 16)
    assert lora.preview.startswith(b"\x89PNG")
    told = await trains.log(daemon, job.id, with_samples=True)
    assert [step.step for step in told.steps] == list(range(1, 11))
    assert (told.lora, {step.of for step in told.steps}) == (lora.id, {10})
    assert [(one.step, one.prompt) for one in told.samples] == [
        (5, "sks cat"),
        (5, "a cat"),
        (10, "sks cat"),
        (10, "a cat"),
    ]
    assert [one.data for one in samples] == [one.data for one in told.samples if one in samples]
    drawn = await daemon.create("sks cat", loras=[jobs_pb2.LoraUse(lora="cat")])
    assert (await daemon.finish(drawn.id)).state == SUCCEEDED


async def test_it_goes_on_after_the_worker_was_killed(make_home: Callable[..., Home]) -> None:
    """The same losses, the same LoRA, and no loss is counted twice."""
    async with running(make_home()) as daemon:
        calm = await daemon.finish((await trains.train(daemon, name="calm")).id)
        hurt = await trains.train(daemon, name="hurt", trigger="sks [crash once]")
        ended = await daemon.finish(hurt.id)
        assert (ended.state, ended.attempts) == (SUCCEEDED, 0), ended.error
        first, second = await trains.log(daemon, calm.id), await trains.log(daemon, hurt.id)
        assert [(s.step, s.loss) for s in first.steps] == [(s.step, s.loss) for s in second.steps]
        status = await daemon.status()
        assert status.workers[0].restarts == 1


async def test_it_goes_on_after_the_daemon_was_killed(home: Home) -> None:
    """kill -9 of the daemon, which ends its worker, after the first checkpoint."""
    async with running(home) as daemon:
        job = await trains.train(daemon, name="it", trigger="sks [held]", sample_prompts=["it"], sample_every=1)
        await daemon.logged("checkpoint kept")
        await daemon.stop(signal.SIGKILL)
    rows = home.rows("SELECT step FROM training_steps")
    assert rows == [(1,), (2,), (3,), (4,)]  # with the checkpoint, not before it
    ((step, sha256),) = home.rows("SELECT checkpoint_step, checkpoint_sha256 FROM trainings")
    assert step == 4 and (home.paths.training_dir / str(sha256)).is_file()
    home.release()
    async with running(home) as daemon:
        ended = await daemon.finish(job.id)
        assert ended.state == SUCCEEDED, ended.error
        told = await trains.log(daemon, job.id, with_samples=True)
        assert [one.step for one in told.steps] == [one.step for one in told.samples] == list(range(1, 11))
        calm = await daemon.finish((await trains.train(daemon, name="calm", trigger="sks [held]")).id)
        again = await trains.log(daemon, calm.id)
        assert [one.loss for one in told.steps] == [one.loss for one in again.steps]


async def test_a_training_that_kills_its_worker_fails_alone(home: Home) -> None:
    """The third death without a new checkpoint ends it; what is drawn meanwhile is drawn."""
    async with running(home) as daemon:
        job = await trains.train(daemon, trigger="sks [crash]")
        drawn = [await daemon.create(f"an apple {number} [slow]", steps=8) for number in range(3)]
        ended = await daemon.finish(job.id)
        assert (ended.state, ended.error.reason) == (jobs_pb2.JOB_STATE_FAILED, "WORKER_DIED")
        for one in drawn:
            done = await daemon.finish(one.id)
            assert (done.state, done.attempts) == (SUCCEEDED, 0)


async def test_pictures_are_drawn_while_it_trains(daemon: Daemon) -> None:
    """More than the worker holds at once, so that a training must not take their places."""
    job = await trains.train(daemon, trigger="sks [held]")
    await trains.reached(daemon, job.id, 5)
    drawn = [await daemon.create("an apple", count=20) for _ in range(3)]
    for one in drawn:
        assert (await daemon.finish(one.id)).state == SUCCEEDED
    assert (await daemon.jobs.GetJob(jobs_pb2.GetJobRequest(id=job.id))).state == jobs_pb2.JOB_STATE_RUNNING
    second = await trains.train(daemon)
    event = await daemon.see(second.id, "queued")
    assert event.queued.why == "another training runs"
    daemon.home.release()
    for one in (job, second):
        assert (await daemon.finish(one.id)).state == SUCCEEDED


async def test_when_idle_it_waits_for_what_is_drawn(daemon: Daemon) -> None:
    drawn = await daemon.create("an apple [held]")
    job = await trains.train(daemon, when_idle=True)
    event = await daemon.see(job.id, "queued")
    assert event.queued.why == "waiting until nothing is drawn"
    daemon.home.release()
    assert (await daemon.finish(job.id)).state == SUCCEEDED
    done = await daemon.finish(drawn.id)
    begun = (await daemon.jobs.GetJob(jobs_pb2.GetJobRequest(id=job.id))).start_time
    assert begun.ToNanoseconds() > done.finish_time.ToNanoseconds()


async def test_cancelled_and_gone_on_with(daemon: Daemon) -> None:
    """The new job takes over checkpoint and losses, and becomes the LoRA that the first would have become."""
    job = await trains.train(daemon, name="it", trigger="sks [held]")
    await trains.reached(daemon, job.id, 5)
    await daemon.logged("checkpoint kept")
    refused = await _refused(daemon, trains.request(resume="it"))
    assert refused == "IN_USE"
    cancelled = await daemon.jobs.CancelJob(jobs_pb2.CancelJobRequest(id=job.id))
    assert cancelled.state == jobs_pb2.JOB_STATE_CANCELLED
    assert [one.step for one in (await trains.log(daemon, job.id)).steps] == [1, 2, 3, 4, 5]
    daemon.home.release()
    plan = await daemon.jobs.PlanJob(trains.request(resume="it"))
    assert plan.notes[0] == f"goes on from step 4 of job {job.id}"
    resumed = await daemon.jobs.CreateJob(trains.request(resume="it"))
    assert (resumed.train.resume, resumed.train.name, resumed.train.steps) == (job.id, "it", 10)
    begun: list[int] = []
    async for event in daemon.jobs.WatchJob(jobs_pb2.WatchJobRequest(id=resumed.id)):
        if event.HasField("training"):
            begun.append(event.training.step)
        if event.HasField("finished"):
            assert event.finished.job.state == SUCCEEDED, event.finished.job.error
    assert begun[0] >= 5
    calm = await daemon.finish((await trains.train(daemon, name="calm", trigger="sks [held]")).id)
    losses = [[one.loss for one in (await trains.log(daemon, one)).steps] for one in (resumed.id, calm.id)]
    assert losses[0] == losses[1] and len(losses[0]) == 10
    assert await _refused(daemon, trains.request(resume=resumed.id)) == "JOB_FINISHED"
    assert await _refused(daemon, trains.request(resume="nothing-like-it")) == "UNKNOWN_JOB"
    await daemon.loras.DeleteLora(loras_pb2.DeleteLoraRequest(lora="it"))
    with pytest.raises(grpc.aio.AioRpcError, match="was removed"):
        await daemon.jobs.CreateJob(trains.request(resume=resumed.id))


async def test_want_of_memory_says_what_to_change(daemon: Daemon) -> None:
    ended = await daemon.finish((await trains.train(daemon, trigger="sks [no memory]")).id)
    assert (ended.error.reason, ended.error.hint) == ("OUT_OF_MEMORY", "--batch 1 --resolution 256")
    drawn = await daemon.create("an apple")
    assert (await daemon.finish(drawn.id)).state == SUCCEEDED


async def test_a_hanging_training_is_replaced_and_fails_in_the_end(make_home: Callable[..., Home]) -> None:
    async with running(make_home(CRAFT_WORKER_STALL_TIMEOUT_S="1")) as daemon:
        ended = await daemon.finish((await trains.train(daemon, trigger="sks [hang]")).id)
        assert (ended.error.reason, ended.attempts) == ("WORKER_DIED", 3)


async def test_stopping_the_daemon_does_not_wait_for_a_training(make_home: Callable[..., Home]) -> None:
    async with running(home := make_home(CRAFT_DAEMON_GRACE_S="600")) as daemon:
        job = await trains.train(daemon, trigger="sks [held]")
        await trains.reached(daemon, job.id, 5)
        assert await daemon.stop(signal.SIGTERM) == 0
    assert home.rows("SELECT state, is_suspect, attempts FROM jobs") == [("QUEUED", 0, 0)]


async def test_the_lora_is_registered_even_where_the_daemon_died_just_before(home: Home) -> None:
    """What the worker had finished is kept: nothing is trained twice, not even a worker is started."""
    async with running(home) as daemon:
        job = await trains.train(daemon, name="it")
        assert (await daemon.finish(job.id)).state == SUCCEEDED
        await daemon.stop(signal.SIGKILL)
    home.rows("UPDATE jobs SET state = 'RUNNING', lora = ''")
    home.rows("UPDATE trainings SET lora = ''")
    home.rows("DELETE FROM loras")
    home.env["CRAFT_WORKER_MODULE"] = "craftd.no_such_worker"
    async with running(home) as daemon:
        ended = await daemon.finish(job.id)
        assert ended.state == SUCCEEDED, ended.error
        lora = await daemon.loras.GetLora(loras_pb2.GetLoraRequest(lora="it"))
        assert (lora.id, lora.trigger) == (ended.lora, "sks")


async def test_what_stands_in_the_way_is_named(daemon: Daemon) -> None:
    dataset = (await trains.upload(daemon)).id
    for fields, at in (
        ({"rank": 0}, "rank"),
        ({"rank": 100_000}, "rank"),
        ({"steps": 0}, "steps"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"alpha": float("inf")}, "alpha"),
        ({"resolution": 67}, "resolution"),
        ({"batch_size": 0}, "batch_size"),
        ({"name": "../it"}, "name"),
        ({"name": ""}, "name"),
        ({"trigger": ""}, "trigger"),
        ({"trigger": "a\nb"}, "trigger"),
        ({"format": "pickle"}, "format"),
        ({"learning_rate_schedule": "zigzag"}, "learning_rate_schedule"),
        ({"class_prompt": "a cat"}, "class_pictures"),
        ({"class_pictures": 5}, "class_prompt"),
        ({"sample_prompts": [" "]}, "sample_prompts"),
        ({"sample_prompts": ["x"] * 17}, "sample_prompts"),
        ({"sample_every": 11}, "sample_every"),
        ({"sample_prompts": ["x"] * 16, "sample_every": 1, "steps": 13}, "sample_every"),
        ({"ema_decay": 1.0}, "ema_decay"),
        ({"seed": 2**53}, "seed"),
        ({"epochs": 10**6, "steps": None, "batch_size": 1}, "epochs"),
        ({"warmup_steps": 11}, "warmup_steps"),
        ({"optimizer": "sgd"}, "optimizer"),
        ({"optimizer": "lion", "optimizer_args": ["d0=1"]}, "optimizer_args"),
        ({"optimizer_args": ["betas=0.9"]}, "optimizer_args"),
        ({"optimizer_args": ["weight_decay=much"]}, "optimizer_args"),
        ({"optimizer": "schedule-free", "ema_decay": 0.9}, "ema_decay"),
        ({"schedule_restarts": 3}, "schedule_restarts"),
        ({"text_encoder_rate": 1e-5}, "text_encoder_rate"),
        ({"debiased": True, "min_snr_gamma": 5.0}, "debiased"),
        ({"keep_tags": 1}, "keep_tags"),
        ({"noise_offset": float("nan")}, "noise_offset"),
        ({"network": "boft"}, "network"),
        ({"network": "loha", "dora": True}, "dora"),
        ({"network": "lokr", "format": "peft"}, "format"),
        ({"lokr_factor": 4}, "lokr_factor"),
        ({"block_ranks": ["(a+)+$=4"]}, "block_ranks"),
        ({"block_ranks": ["mid_block=257"]}, "block_ranks"),
        ({"validation": 2.0}, "validation"),
        ({"validation": 1.5}, "validation"),
        ({"validate_every": 2}, "validate_every"),
        ({"sample_prompts": ["x --w 99999"]}, "sample_prompts"),
        ({"dataset": "0" * 64}, "dataset"),
    ):
        given = {name: value for name, value in {"dataset": dataset, **fields}.items() if value is not None}
        asked = trains.request(**given)  # type: ignore[arg-type]
        if "steps" in fields and fields["steps"] is None:
            asked.train.ClearField("steps")
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await daemon.jobs.CreateJob(asked)
        assert field(error.value) == at, (fields, error.value.details())
    assert not (await daemon.jobs.ListJobs(jobs_pb2.ListJobsRequest())).jobs


async def test_a_training_begins_with_a_lora(daemon: Daemon) -> None:
    """Its rank is that LoRA's; what would change its layers is refused."""
    dataset = (await trains.upload(daemon)).id
    first = await daemon.finish((await daemon.jobs.CreateJob(trains.request(dataset, name="first", rank=8))).id)
    job = await daemon.jobs.CreateJob(trains.request(dataset, name="second", base_lora="first"))
    assert (job.train.rank, job.train.base_lora) == (8, first.lora)
    assert len(job.train.base_lora_sha256) == 64
    ended = await daemon.finish(job.id)
    assert ended.state == SUCCEEDED, ended.error
    for fields, at in (({"rank": 4}, "rank"), ({"network": "loha"}, "network"), ({"conv_rank": 2}, "conv_rank")):
        asked = trains.request(dataset, base_lora="first", **fields)  # type: ignore[arg-type]
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await daemon.jobs.CreateJob(asked)
        assert field(error.value) == at
    assert await _refused(daemon, trains.request(dataset, base_lora="nobodys")) == "UNKNOWN_LORA"


async def test_a_name_belongs_to_one_lora(daemon: Daemon) -> None:
    """Also while it is still being trained; and a request that comes twice is one job."""
    dataset = (await trains.upload(daemon)).id
    asked = trains.request(dataset, name="it", trigger="sks [held]")
    job = await daemon.jobs.CreateJob(asked)
    assert (await daemon.jobs.CreateJob(asked)).id == job.id
    assert await _refused(daemon, trains.request(dataset, name="it")) == "NAME_TAKEN"
    daemon.home.release()
    assert (await daemon.finish(job.id)).state == SUCCEEDED
    assert await _refused(daemon, trains.request(dataset, name="it")) == "NAME_TAKEN"


async def test_a_model_that_cannot_be_trained_is_refused_by_name(home: Home) -> None:
    index = home.paths.models_dir / "odd" / "model_index.json"
    (home.paths.models_dir / "flat").rename(index.parent)
    told = json.loads(index.read_text())
    told["_class_name"] = "LatentConsistencyModelPipeline"
    index.write_text(json.dumps(told))
    async with running(home) as daemon:
        dataset = (await trains.upload(daemon)).id
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await daemon.jobs.CreateJob(trains.request(dataset, model="odd"))
        assert reason(error.value) == "UNTRAINABLE_MODEL"
        assert "odd" in str(error.value.details())


async def test_the_plan_says_what_would_happen(daemon: Daemon) -> None:
    files = {**pictures(5), "wide.png": picture(9, width=192, height=96)}
    dataset = await trains.upload(daemon, files, {"0.png": "a red apple"})
    asked = trains.request(dataset.id, epochs=2, batch_size=2, resolution=64)
    asked.train.ClearField("steps")
    plan = await daemon.jobs.PlanJob(asked)
    assert (plan.train.steps, plan.train.epochs) == (8, 2)  # 3 batches of squares, 1 of the wide one
    notes = "\n".join(plan.notes)
    assert "6 pictures, trained at: 5 of 64x64" in notes
    assert "8 steps of up to 2 pictures: each picture is seen about 2 times" in notes
    assert "5 pictures have no caption" in notes
    for steps, every, checkpoint_every, said in (
        (8, 0, 4, "a checkpoint every 4 steps"),
        (7, 3, 3, "a checkpoint every 3 steps"),
        (8, 8, 8, "no checkpoint on the way"),
        (8, 1000, 8, "no checkpoint on the way"),
        (1, 0, 1, "no checkpoint on the way"),
    ):
        asked = trains.request(dataset.id, steps=steps, checkpoint_every=every)
        planned = await daemon.jobs.PlanJob(asked)
        assert planned.train.checkpoint_every == checkpoint_every
        assert any(note.startswith(said) for note in planned.notes), planned.notes
    assert not (await daemon.jobs.ListJobs(jobs_pb2.ListJobsRequest())).jobs


async def test_trainings_and_datasets_are_their_owners(make_home: Callable[..., Home]) -> None:
    """A user trains on pictures of their own, and goes on with trainings of their own."""
    async with running(make_home(CRAFT_DAEMON_LISTEN="127.0.0.1:0")) as daemon:
        address = (await daemon.status()).listen
        stub, keys = keys_pb2_grpc.KeysStub(daemon.channel), {}
        for owner in ("ann", "bob"):
            made = await stub.CreateKey(keys_pb2.CreateKeyRequest(owner=owner))
            keys[owner] = (("x-api-key", made.secret),)
        dataset = await trains.upload(daemon, address=address, metadata=keys["ann"])
        async with grpc.aio.insecure_channel(address) as channel:
            jobs = jobs_pb2_grpc.JobsStub(channel)
            job = await jobs.CreateJob(trains.request(dataset.id, name="it"), metadata=keys["ann"])
            for asked, why in (
                (trains.request(dataset.id), "UNKNOWN_DATASET"),
                (trains.request(resume="it"), "UNKNOWN_JOB"),
                (trains.request(resume=job.id), "UNKNOWN_JOB"),
            ):
                with pytest.raises(grpc.aio.AioRpcError) as error:
                    await jobs.CreateJob(asked, metadata=keys["bob"])
                assert reason(error.value) == why
            with pytest.raises(grpc.aio.AioRpcError) as error:
                asked_log = training_pb2.GetTrainingLogRequest(job_id=job.id)
                await training_pb2_grpc.TrainingStub(channel).GetTrainingLog(asked_log, metadata=keys["bob"])
            assert reason(error.value) == "UNKNOWN_JOB"
        assert (await daemon.finish(job.id)).state == SUCCEEDED
        again = await trains.upload(daemon, address=address, metadata=keys["bob"])
        assert again.id == dataset.id  # the same pictures, sent by another: theirs too


async def test_samples_go_when_pictures_go(make_home: Callable[..., Home]) -> None:
    home = make_home(CRAFT_IMAGES_KEEP_DAYS="2")
    async with running(home) as daemon:
        job = await daemon.finish((await trains.train(daemon, sample_prompts=["x"], sample_every=5)).id)
        await daemon.stop()
    for days, kept in ((1, 2), (3, 0)):
        home.rows(f"UPDATE jobs SET finish_time = unixepoch() - {days} * 86400")
        async with running(home) as daemon:
            told = await trains.log(daemon, job.id, with_samples=True)
            assert (len(told.samples), len(told.steps)) == (kept, 10)
            assert (home.paths.training_dir / job.id).exists() == bool(kept)
            await daemon.stop()


async def test_a_training_waits_for_a_disk_that_refuses_and_names_no_path(home: Home) -> None:
    """Its checkpoint cannot be kept; what is drawn goes on."""
    async with running(home) as daemon:
        dataset = await trains.upload(daemon)
        home.paths.training_dir.write_text("in the way")
        job = await daemon.jobs.CreateJob(trains.request(dataset.id))
        why = await daemon.waits_for(job.id, "could not be written")
        assert str(home.root) not in why
        drawn = await daemon.create("an apple")
        assert (await daemon.finish(drawn.id)).state == SUCCEEDED
        home.paths.training_dir.unlink()
        assert (await daemon.finish(job.id)).state == SUCCEEDED


async def _refused(daemon: Daemon, asked: jobs_pb2.CreateJobRequest) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await daemon.jobs.CreateJob(asked)
    return reason(error.value)
