"""Several jobs in one batch: how many model calls they take, how they join and how they leave."""

from __future__ import annotations

from pathlib import Path

from craft_protos import jobs_pb2
from craft_protos.worker_pb2 import Cancel, FromWorker, ModelManifest, ToWorker, Unload

from tests.worker.client import WorkerProcess, provenance, submit

LONG_PROMPT = "a red cat and a dog, " * 12  # two chunks of 75 tokens


def _calls_during(worker: WorkerProcess, *sent: ToWorker) -> int:
    """UNet calls made for these jobs, which all have come when their model is loaded, by a worker that was idle."""
    model = sent[0].dispatch.model
    worker.draw(submit(model, "before", steps=1))
    before = worker.predict_calls()
    worker.send(ToWorker(unload=Unload(model=model.name)))
    worker.until_kind("unloaded")
    worker.draw(*sent)
    return worker.predict_calls() - before


def _first_step_of(job_id: str, seen: list[FromWorker]) -> int:
    return next(i for i, frame in enumerate(seen) if frame.HasField("step") and frame.step.job_id == job_id)


def _last_step_of(job_id: str, seen: list[FromWorker]) -> int:
    return max(i for i, frame in enumerate(seen) if frame.HasField("step") and frame.step.job_id == job_id)


def _draw_beside(worker: WorkerProcess, first: ToWorker, other: ToWorker, at: int = 1) -> list[FromWorker]:
    """What is seen until a job is done that comes at a step of one which takes much longer, and is cancelled then."""
    name = first.dispatch.job_id
    worker.send(first)
    worker.until(lambda frame: frame.step.job_id == name and frame.step.step >= at)
    worker.send(other)
    seen = worker.until_ended(other.dispatch.job_id)
    worker.until(lambda frame: frame.step.job_id == name)  # not every step is told
    worker.send(ToWorker(cancel=Cancel(job_id=name, epoch=1)))
    assert worker.until_kind("done").cancelled
    return seen


def test_eight_jobs_of_twenty_steps_take_twenty_calls(worker: WorkerProcess, sd: ModelManifest) -> None:
    jobs = [submit(sd, f"job{i}", steps=20, seed=i, prompt=f"a cat of {i} colours") for i in range(8)]
    assert _calls_during(worker, *jobs) <= 22


def test_a_job_that_comes_later_is_stepped_before_the_first_ends(worker: WorkerProcess, sd: ModelManifest) -> None:
    late = submit(sd, "b", steps=3, sampler="UniPC", guidance_scale=1.0, prompt=LONG_PROMPT)
    _draw_beside(worker, submit(sd, "a", steps=1000), late, at=10)
    assert _first_step_of("b", worker.seen) < _last_step_of("a", worker.seen)


def test_a_job_of_the_same_text_length_shares_calls_at_once(worker: WorkerProcess, sd: ModelManifest) -> None:
    late = submit(sd, "b", steps=3, sampler="DPM++ 2M", guidance_scale=1.0)
    seen = _draw_beside(worker, submit(sd, "a", steps=1000), late)
    (image,) = [frame.image for frame in seen if frame.HasField("image")]
    assert provenance(image)["batch"] == 2


def test_two_models_take_turns(worker: WorkerProcess, models: dict[str, ModelManifest]) -> None:
    worker.draw(submit(models["sd-tiny-vae"], "warm"))
    _draw_beside(worker, submit(models["sd"], "a", steps=1000), submit(models["sd-tiny-vae"], "b"))
    assert _first_step_of("b", worker.seen) < _last_step_of("a", worker.seen)


def test_interactive_work_goes_before_batch_work(worker: WorkerProcess, models: dict[str, ModelManifest]) -> None:
    worker.draw(submit(models["sd-tiny-vae"], "warm"), submit(models["sd"], "warm too"))
    slow = submit(models["sd"], "slow", steps=100, priority=jobs_pb2.PRIORITY_BATCH)
    worker.send(slow, submit(models["sd-tiny-vae"], "quick", steps=30))
    worker.until_ended("slow", "quick")
    assert _last_step_of("quick", worker.seen) < _last_step_of("slow", worker.seen)


def test_steps_count_as_users_count_them(worker: WorkerProcess, sd: ModelManifest) -> None:
    for sampler in ("Heun", "DPM2", "PNDM", "Euler"):
        worker.seen.clear()
        worker.draw(submit(sd, sampler, sampler=sampler, steps=6))
        steps = [frame.step for frame in worker.seen if frame.HasField("step")]
        assert [step.of for step in steps] == [6] * len(steps)
        assert [step.step for step in steps] == sorted({step.step for step in steps})
        assert steps[-1].step == 6


def test_every_job_says_started_then_steps_then_image_then_done(worker: WorkerProcess, sd: ModelManifest) -> None:
    worker.draw(submit(sd, "job", epoch=5, indices=(1, 3)))
    kinds = [kind for frame in worker.seen if (kind := frame.WhichOneof("frame")) not in ("stats", "loading", "loaded")]
    assert kinds[0] == "started"
    assert kinds[-1] == "done"
    assert kinds.count("image") == 2
    about = [getattr(frame, frame.WhichOneof("frame") or "") for frame in worker.seen]
    assert {frame.epoch for frame in about if hasattr(frame, "epoch")} == {5}


def test_more_rows_than_fit_wait_their_turn(files: Path, sd: ModelManifest) -> None:
    from tests.worker.client import worker as start

    with start(files, "--max-rows", "2") as small:
        images = small.draw(submit(sd, "many", indices=tuple(range(5))))
    assert [image.index for image in images] == [0, 1, 2, 3, 4]
    assert max(provenance(image)["batch"] for image in images) == 2
