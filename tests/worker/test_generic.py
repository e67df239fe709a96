"""Pipelines that bring their own loop."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from craft_protos.generate import Start
from craft_protos.reasons import CraftError
from craft_protos.worker_pb2 import Cancel, ModelManifest, ToWorker
from craftd.worker.families import samplers
from craftd.worker.families.generic import PipelineRunner
from craftd.worker.families.pipeline_run import PipelineRun
from craftd.worker.lora.adapter_manager import AdapterManager
from craftd.worker.lora.reader import Reader
from craftd.worker.lora.targets import Targets
from diffusers import FlowMatchEulerDiscreteScheduler, SCMScheduler

from tests import tiny_models
from tests.worker.client import WorkerProcess, pixels, put_model, submit
from tests.worker.fakes import draw


@pytest.mark.parametrize(("kind", "sampler"), [("pixart", ""), ("pixart", "DPM++ 2M Karras"), ("lcm", "")])
def test_the_picture_is_the_pipelines_own(
    worker: WorkerProcess, models: dict[str, ModelManifest], truth: Callable[..., np.ndarray], kind: str, sampler: str
) -> None:
    (image,) = worker.draw(submit(models[kind], sampler=sampler))
    expected = truth(kind, sampler=sampler, **({"use_resolution_binning": False} if kind == "pixart" else {}))
    assert np.ptp(expected) > 20
    assert np.abs(pixels(image) - expected).max() <= 1


def test_steps_are_told(worker: WorkerProcess, models: dict[str, ModelManifest]) -> None:
    worker.draw(submit(models["pixart"], sampler="", steps=5))
    assert [(f.step.step, f.step.of) for f in worker.seen if f.HasField("step")][-1] == (5, 5)
    assert not [frame for frame in worker.seen if frame.started.notice]


def test_it_takes_turns_with_other_work(worker: WorkerProcess, models: dict[str, ModelManifest]) -> None:
    worker.draw(submit(models["sd"], "warm"))
    worker.send(submit(models["pixart"], "own", sampler="", steps=40))
    worker.until(lambda frame: frame.step.job_id == "own")
    worker.send(submit(models["sd"], "other"))
    frames = worker.until_ended("own", "other")
    order = [frame.done.job_id for frame in frames if frame.HasField("done")]
    assert order == ["other", "own"]


def test_cancel_stops_it_between_steps(worker: WorkerProcess, models: dict[str, ModelManifest]) -> None:
    worker.send(submit(models["pixart"], "own", sampler="", steps=500))
    worker.until(lambda frame: frame.step.job_id == "own")
    worker.send(ToWorker(cancel=Cancel(job_id="own", epoch=1)))
    assert worker.until_kind("done").cancelled
    assert max(frame.step.step for frame in worker.seen) < 400


def test_the_generic_family_can_be_asked_for(
    worker: WorkerProcess, files: Path, truth: Callable[..., np.ndarray]
) -> None:
    model = put_model(tiny_models.cached("sd"), files, "sd-as-it-is", family="generic")
    (image,) = worker.draw(submit(model, sampler="Euler a", steps=5))
    assert np.abs(pixels(image) - truth(sampler="Euler a", steps=5)).max() <= 1


class Plain:
    """A pipeline without a callback."""

    def __call__(self, prompt: str, num_inference_steps: int = 3, generator: Any = None) -> Any:
        noise = torch.rand(4, 4, 3, generator=generator).numpy()
        return SimpleNamespace(images=[noise])

    def set_progress_bar_config(self, **_config: Any) -> None: ...


class Legacy(Plain):
    """One with the callback that pipelines used to have."""

    def __call__(self, prompt: str, num_inference_steps: int = 3, callback: Any = None, callback_steps: int = 1) -> Any:
        for i in range(num_inference_steps):
            callback(i, 0, None)
        return SimpleNamespace(images=[np.zeros((4, 4, 3))])


class Painter(Plain):
    """One that needs a picture to begin with."""

    def __call__(self, prompt: str, image: Any) -> Any: ...


class Unconditional(Plain):
    """One that takes no text."""

    def __call__(self, batch_size: int = 1) -> Any: ...


def _runner(pipe: Any) -> PipelineRunner:
    reader = Reader(Path("nowhere"), lambda _read: None)
    adapters = AdapterManager(Targets(pipe), reader, torch.device("cpu"), merges_only=True)
    return PipelineRunner(pipe, adapters, precision="fp32", resident_bytes=1, device=torch.device("cpu"))


def _run(pipe: Any, seed: int = 1) -> PipelineRun:
    return _runner(pipe).begin(draw(steps=3), seed=seed, networks={})


def test_one_without_a_callback_says_that_it_cannot_be_interrupted() -> None:
    assert "Plain cannot be interrupted" in _runner(Plain()).notice
    run = _run(Plain())
    run.advance()
    assert run.is_done
    assert (run.step, run.of) == (3, 3)


class Scheduled(Plain):
    """One without a callback, that has a scheduler."""

    def __init__(self) -> None:
        self.scheduler = FlowMatchEulerDiscreteScheduler()

    def __call__(self, prompt: str, num_inference_steps: int = 3) -> Any:
        self.scheduler.set_timesteps(num_inference_steps)
        latents = torch.zeros(1, 4, 4, 4)
        for timestep in self.scheduler.timesteps:
            latents = self.scheduler.step(latents, timestep, latents).prev_sample
        return SimpleNamespace(images=[np.zeros((4, 4, 3))])


@pytest.mark.parametrize("pipe", [Legacy(), Scheduled()], ids=["callback", "scheduler"])
def test_the_baton_is_passed_at_each_step(pipe: Any) -> None:
    assert _runner(pipe).notice == ""
    run, steps = _run(pipe), []
    while not run.is_done:
        run.advance()
        steps.append((run.step, run.is_done))
    assert steps == [(1, False), (2, False), (3, False), (3, True)]


class Careless(Plain):
    """One that draws with torch's global random numbers, at each step."""

    def __call__(self, prompt: str, num_inference_steps: int = 3, callback: Any = None) -> Any:
        drawn = torch.zeros(4, 4, 3)
        for i in range(num_inference_steps):
            drawn += torch.rand(4, 4, 3) / num_inference_steps
            callback(i, 0, None)
        return SimpleNamespace(images=[drawn.numpy()])


def test_global_random_numbers_are_a_picture_s_own_and_nobody_else_s() -> None:
    def drawn(*runs: PipelineRun) -> list[np.ndarray]:
        while not all(run.is_done for run in runs):
            for run in runs:
                run.advance()
        return [run.result for run in runs if run.result is not None]

    before = torch.get_rng_state()
    alone = [drawn(_run(Careless(), seed))[0] for seed in (1, 2)]
    together = drawn(_run(Careless(), 1), _run(Careless(), 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(np.array_equal(one, other) for one, other in zip(alone, together, strict=True))
    assert not np.array_equal(*alone)


class Levelled(Plain):
    """One whose makers laid out the noise levels of their steps."""

    def __init__(self) -> None:
        self.config = {"sample_sigmas": [1.0, 0.4]}
        self.told: list[Any] = []

    def __call__(self, prompt: str, num_inference_steps: int = 2, sigmas: Any = None) -> Any:
        self.told.append(sigmas)
        return SimpleNamespace(images=[np.zeros((4, 4, 3))])


@pytest.mark.parametrize(("steps", "levels"), [(2, None), (4, [1.0, 0.75, 0.5, 0.25])])
def test_other_steps_than_its_makers_are_laid_out_evenly(steps: int, levels: list[float] | None) -> None:
    pipe = Levelled()
    _runner(pipe).begin(draw(steps=steps), seed=1, networks={}).advance()
    (told,) = pipe.told
    assert told is None if levels is None else np.allclose(told, levels)


def test_a_consistency_model_keeps_its_own_sampler() -> None:
    own = SCMScheduler()
    assert type(samplers.build("LCM", own)) is SCMScheduler
    with pytest.raises(CraftError, match="Euler does not fit this model") as refused:
        samplers.build("Euler", own)
    assert refused.value.hint == "use LCM"


def test_a_start_picture_is_refused_and_not_left_out_in_silence() -> None:
    with pytest.raises(CraftError) as refused:
        _runner(Plain()).begin(draw(start=Start("0" * 64, 0.5)), seed=1, networks={})
    assert (refused.value.reason, "Plain's own loop" in refused.value.message) == ("INVALID_FIELD", True)


def test_closing_ends_the_thread_wherever_it_is() -> None:
    _run(Legacy()).close()  # never begun
    run = _run(Legacy())
    run.advance()
    run.close()
    assert not run.is_running
    run.close()


def test_what_it_raises_is_raised_to_the_engine() -> None:
    run = _run(Legacy())
    run.advance()

    class Broken(Legacy):
        def __call__(self, prompt: str, num_inference_steps: int = 3, callback: Any = None) -> Any:
            raise ValueError("no such luck")

    run.close()
    with pytest.raises(ValueError, match="no such luck"):
        _run(Broken()).advance()


@pytest.mark.parametrize(("pipe", "why"), [(Painter(), "needs image"), (Unconditional(), "has no prompt")])
def test_what_needs_more_than_text_is_refused_by_name(pipe: Any, why: str) -> None:
    with pytest.raises(CraftError, match=f"{type(pipe).__name__} {why}") as caught:
        _runner(pipe)
    assert caught.value.reason == "UNSUPPORTED_MODEL"
