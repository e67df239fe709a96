"""What does nothing with a model is said when its job starts; numbers of steps that would fail late fail at once."""

from __future__ import annotations

import diffusers
import pytest
import torch
from craft_protos.reasons import CraftError
from craft_protos.worker_pb2 import ModelManifest
from craftd.worker.families import samplers

from tests.worker.client import WorkerProcess, submit

LONG = "word " * 140


def _notice(worker: WorkerProcess, model: ModelManifest, **spec: object) -> str:
    worker.draw(submit(model, steps=2, **{"sampler": "", **spec}))
    (notice,) = (frame.started.notice for frame in worker.seen if frame.HasField("started"))
    return notice


@pytest.mark.parametrize("kind", ["flux", "sd3"])
def test_weights_that_t5_does_not_know_are_said(
    worker: WorkerProcess, models: dict[str, ModelManifest], kind: str
) -> None:
    said = _notice(worker, models[kind], prompt="a (red:1.8) cat")
    assert said == "the prompt's weights do nothing to what T5 reads: it knows none"


@pytest.mark.parametrize(("kind", "length"), [("flux", 512), ("sd3", 256)])
def test_what_t5_does_not_read_is_said(
    worker: WorkerProcess, models: dict[str, ModelManifest], kind: str, length: int
) -> None:
    said = _notice(worker, models[kind], prompt=f"{LONG} the end")
    assert said.startswith(f"T5 reads the prompt's first {length} tokens, which leaves out '")
    assert "tokens)" in said


def test_a_negative_prompt_is_looked_at_where_the_model_has_one(
    worker: WorkerProcess, models: dict[str, ModelManifest]
) -> None:
    assert "the negative prompt's weights" in _notice(worker, models["sd3"], negative_prompt="[blur]")


@pytest.mark.parametrize("kind", ["sd", "sdxl", "sd3-no-t5"])
def test_where_all_is_read_nothing_is_said(worker: WorkerProcess, models: dict[str, ModelManifest], kind: str) -> None:
    assert _notice(worker, models[kind], prompt=f"a (red:1.8) cat {'word ' * 100}") == ""


def test_short_and_plain_prompts_are_read_whole_by_t5(worker: WorkerProcess, models: dict[str, ModelManifest]) -> None:
    assert _notice(worker, models["flux"], prompt=r"a red cat \(and a dog\)") == ""


def test_a_pipeline_that_reads_weights_as_words_and_cuts_says_so(
    worker: WorkerProcess, models: dict[str, ModelManifest]
) -> None:
    said = _notice(worker, models["pixart"], prompt=f"a (red:1.8) cat {LONG}")
    assert "PixArtAlphaPipeline reads the prompt's weights as words" in said
    assert "it reads the prompt's first 120 tokens, which leaves out '" in said


@pytest.mark.parametrize("sampler", ["DPM++ 2M", "DPM++ 2S", "UniPC", "DDIM", "PNDM", "Heun", "LCM"])
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_as_many_steps_as_are_let_through_can_be_taken(spacing: str, sampler: str) -> None:
    config = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
    own = diffusers.EulerDiscreteScheduler.from_config({**config, "timestep_spacing": spacing})
    for steps in (1000, 999, 501):
        scheduler = samplers.build(sampler, own)
        try:
            samplers.spread(scheduler, steps)
        except CraftError as refusal:
            fewer = int(refusal.hint.removeprefix("take "))
            assert fewer < steps
            samplers.spread(scheduler := samplers.build(sampler, own), fewer)
        _take_all(scheduler)


def _take_all(scheduler: samplers.Scheduler) -> None:
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(1, 1, 4, 4, generator=generator) * samplers.noise_deviation(scheduler)
    arguments = samplers.step_arguments(scheduler, generator)
    for timestep in scheduler.timesteps:
        samplers.scaled(scheduler, latents, timestep)
        output = torch.randn(latents.shape, generator=generator)
        latents = scheduler.step(output, timestep, latents, **arguments, return_dict=False)[0]
    assert torch.isfinite(latents).all()


def test_too_many_steps_are_refused_before_the_first(worker: WorkerProcess, models: dict[str, ModelManifest]) -> None:
    failed = worker.fail(submit(models["sd"], sampler="DDIM", steps=1000))
    assert failed.error.reason == "INVALID_FIELD" and failed.error.message.startswith("steps: ")
    assert failed.error.hint == "take 999"
    assert not [frame for frame in worker.seen if frame.HasField("step")]
