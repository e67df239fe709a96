"""Pictures by the samplers that diffusers lacks: its own pipelines' loop with the same scheduler, starts and masks too.

That the schedulers are right is in test_samplers.py.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from craft_protos.worker_pb2 import ModelManifest
from craftd.worker.families.samplers import build

from tests.worker.client import WorkerProcess, pixels, provenance, submit
from tests.worker.starts import Alike, diffusers_draws, put, spotted, start_picture, submit_over

_NAMED = ("DPM++ 2S a", "K DPM++ SDE", "K DPM++ 3M SDE", "RES multistep", "DPM fast", "LCM Karras", "Euler KL Optimal")
_WHOLE = ("DPM adaptive", "DDIM CFG++", "Restart")  # nothing of diffusers' draws with them, or begins within them


def draw(worker: WorkerProcess, model: ModelManifest, sampler: str, **spec: Any) -> np.ndarray:
    (image,) = worker.draw(submit(model, sampler=sampler, **({"steps": 6} | spec)))
    return pixels(image)


def assert_same(made: np.ndarray, expected: np.ndarray) -> None:
    assert np.ptp(expected) > 20, "a flat picture proves nothing"
    assert np.abs(made - expected).max() <= 1


@pytest.mark.parametrize(
    ("sampler", "steps"), [*((name, 6) for name in _NAMED), ("Restart", 22), ("DPM2 Align Your Steps", 6)]
)
def test_pictures(
    worker: WorkerProcess, sd: ModelManifest, truth: Callable[..., np.ndarray], sampler: str, steps: int
) -> None:
    made = draw(worker, sd, sampler, steps=steps)
    assert_same(made, truth(steps=steps, scheduled=lambda own: build(sampler, own, aligned="sd")))


def test_align_your_steps_is_of_the_model(
    worker: WorkerProcess, models: dict[str, ModelManifest], truth: Callable[..., np.ndarray]
) -> None:
    scheduled = partial(build, "Euler Align Your Steps")
    expected = truth("sdxl", steps=6, scheduled=lambda own: scheduled(own, aligned="sdxl"))
    assert_same(draw(worker, models["sdxl"], "Euler Align Your Steps"), expected)


@pytest.mark.parametrize("sampler", ["DPM++ 2S a", "K DPM++ SDE Karras", "RES multistep"])
def test_over_a_start_and_within_a_mask(  # noqa: PLR0917
    alike: Alike,
    worker: WorkerProcess,
    files: Path,
    sd: ModelManifest,
    pipelines: Callable[[str], Any],
    sampler: str,
) -> None:
    alike("sd", sampler=sampler, steps=6, strength=0.5)
    image, mask = start_picture(), spotted()
    job = submit_over(sd, put(files, image), mask=put(files, mask), sampler=sampler, steps=6, strength=0.7)
    (made,) = worker.draw(job)
    expected = diffusers_draws(pipelines("sd"), image, mask, sampler=sampler, steps=6, strength=0.7)
    inside = np.asarray(mask) > 0
    assert np.abs(pixels(made) - expected)[inside].max() <= 2


@pytest.mark.parametrize("sampler", _WHOLE)
def test_the_rest(worker: WorkerProcess, files: Path, sd: ModelManifest, sampler: str) -> None:
    """Beside others in a batch, over a start and within a mask each is a picture, and the one it is alone."""
    image, mask = put(files, start_picture()), put(files, spotted())
    jobs = [
        submit(sd, "plain", sampler=sampler, steps=22),
        submit_over(sd, image, "over", sampler=sampler, steps=40, strength=0.6),
        submit_over(sd, image, "within", mask=mask, sampler=sampler, steps=6, strength=0.6),
    ]
    alone = {job.dispatch.job_id: pixels(worker.draw(job)[0]) for job in jobs}
    together = worker.draw(*jobs, submit(sd, "other", sampler="Euler", steps=9))
    assert max(provenance(one)["batch"] for one in together) > 1
    made = {image.job_id: pixels(image) for image in together}
    for job_id, one in alone.items():
        assert np.ptp(one) > 20 and np.abs(made[job_id] - one).max() <= 2, job_id


def test_steps_of_an_adaptive_one(worker: WorkerProcess, sd: ModelManifest) -> None:
    """They are told as noise that is gone, in the number that was asked for; a remark says that it is none."""
    worker.draw(submit(sd, sampler="DPM adaptive", steps=7))
    told = [(frame.step.step, frame.step.of) for frame in worker.seen if frame.HasField("step")]
    assert told == sorted(told) and told[-1] == (7, 7) and len(told) > 2
    assert any("finds out by itself how many steps" in str(frame) for frame in worker.seen)


def test_cfg_pp(worker: WorkerProcess, sd: ModelManifest, pipelines: Callable[[str], Any]) -> None:
    """By hand with the pipeline's parts: DDIM towards what little guidance says, along the noise without it."""
    pipe, steps, guidance = pipelines("sd"), 5, 5.0
    scheduler: Any = build("Euler", pipe.scheduler)
    scheduler.set_timesteps(steps)
    with torch.inference_mode():
        texts = torch.cat(pipe.encode_prompt("a red cat", "cpu", 1, True)[::-1])
        side = 64 // pipe.vae_scale_factor
        noise = torch.randn(1, pipe.unet.config.in_channels, side, side, generator=torch.Generator().manual_seed(7))
        x = noise * scheduler.init_noise_sigma
        for timestep, level, following in zip(
            scheduler.timesteps, scheduler.sigmas, scheduler.sigmas[1:], strict=False
        ):
            given = (x / (level**2 + 1) ** 0.5).repeat(2, 1, 1, 1)
            without, text = pipe.unet(given, timestep, encoder_hidden_states=texts).sample.chunk(2)
            guided = without + guidance / 12.5 * (text - without)
            x = x - level * guided + following * without
        decoded = pipe.vae.decode(x / pipe.vae.config.scaling_factor).sample
        expected = (pipe.image_processor.postprocess(decoded, output_type="np")[0] * 255).round().astype(int)
    assert_same(draw(worker, sd, "DDIM CFG++", steps=steps, guidance_scale=guidance), expected)


def test_cfg_pp_without_guidance_is_refused(worker: WorkerProcess, sd: ModelManifest) -> None:
    failed = worker.fail(submit(sd, sampler="DDIM CFG++", guidance_scale=1.0))
    assert failed.error.reason == "INVALID_FIELD" and "guidance_scale" in failed.error.message
