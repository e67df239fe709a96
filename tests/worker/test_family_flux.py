"""FLUX.1 is what diffusers' FluxPipeline draws."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
from craft_protos.worker_pb2 import ModelManifest

from tests.matrix import covers
from tests.worker.client import WorkerProcess, pixels, provenance, submit
from tests.worker.families import (
    Truth,
    assert_mixed_batch_is_close,
    assert_same,
    assert_third_of_four_is_the_same_alone,
    draw,
)

# The base test pictures are 64 pixels wide: 16 tokens, from which the shift follows.
_SHIFT = math.exp(0.5 + (1.15 - 0.5) * (16 - 256) / (4096 - 256))


@pytest.fixture
def flux(models: dict[str, ModelManifest]) -> ModelManifest:
    return models["flux"]


@covers("draw", form="folder", kind="flux")
@pytest.mark.parametrize("sampler", ["", "Euler", "DPM++ 2M", "DPM++ 2S", "UniPC"])
def test_samplers(worker: WorkerProcess, flux: ModelManifest, truth: Truth, sampler: str) -> None:
    assert_same(draw(worker, flux, sampler=sampler), truth("flux", sampler))


def test_heun(worker: WorkerProcess, flux: ModelManifest, pipelines: Any) -> None:
    """The pipeline passes sigmas, which this scheduler does not take; else it is the pipeline's own loop."""
    import diffusers
    import torch

    class Heun(diffusers.FlowMatchHeunDiscreteScheduler):
        def set_timesteps(self, num_inference_steps=None, device=None, sigmas=None, mu=None):  # type: ignore[no-untyped-def]
            super().set_timesteps(len(sigmas), device=device)

    pipe = pipelines("flux")
    own = pipe.scheduler
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipe.scheduler = Heun.from_config(own.config, shift=_SHIFT)
        try:
            image = pipe(
                "a red cat",
                width=64,
                height=64,
                guidance_scale=5.0,
                num_inference_steps=4,
                generator=torch.Generator("cpu").manual_seed(7),
            ).images[0]
        finally:
            pipe.scheduler = own
    assert_same(draw(worker, flux, sampler="Heun"), np.asarray(image).astype(int))


@pytest.mark.parametrize("sampler", ["Euler", "DPM++ 2M"])
@pytest.mark.parametrize("guidance", [0.0, 1.0, 9.0])
def test_guidance(worker: WorkerProcess, flux: ModelManifest, truth: Truth, guidance: float, sampler: str) -> None:
    drawn = draw(worker, flux, guidance_scale=guidance, sampler=sampler)
    assert_same(drawn, truth("flux", sampler, guidance_scale=guidance))


@pytest.mark.parametrize(("width", "height"), [(64, 96), (128, 64), (80, 208)])
def test_sizes(worker: WorkerProcess, flux: ModelManifest, truth: Truth, width: int, height: int) -> None:
    size = {"width": width, "height": height}
    assert_same(draw(worker, flux, **size), truth("flux", **size))


@pytest.mark.parametrize("steps", [1, 4])
def test_a_model_without_guidance(
    worker: WorkerProcess, models: dict[str, ModelManifest], truth: Truth, steps: int
) -> None:
    """As schnell is: no guidance goes in, and the shift does not follow from the size."""
    call = {"steps": steps, "guidance_scale": 0.0}
    assert_same(draw(worker, models["flux-schnell"], **call), truth("flux-schnell", **call))


@pytest.mark.parametrize(("negative", "scale"), [("a dog", 6.0), ("", 3.0)])
def test_a_negative_prompt_with_guidance_by_it(
    worker: WorkerProcess, flux: ModelManifest, truth: Truth, negative: str, scale: float
) -> None:
    call = {"negative_prompt": negative, "true_cfg_scale": scale}
    drawn = draw(worker, flux, **call)
    assert_same(drawn, truth("flux", **call))
    both = worker.draw(submit(flux, "usual"), submit(flux, "guided", **call))
    assert [provenance(image)["batch"] for image in both] == [2, 2]
    (guided,) = (pixels(image) for image in both if image.job_id == "guided")
    assert np.abs(guided - drawn).max() <= 1


def test_negative_prompts_are_refused(worker: WorkerProcess, flux: ModelManifest) -> None:
    failed = worker.fail(submit(flux, negative_prompt="a dog"))
    assert (failed.error.reason, "FLUX.1" in failed.error.message) == ("INVALID_FIELD", True)


@pytest.mark.parametrize("sampler", ["Euler a", "DDIM", "DPM++ 2M Karras", "LCM"])
def test_samplers_that_do_not_match_flows_are_refused(worker: WorkerProcess, flux: ModelManifest, sampler: str) -> None:
    failed = worker.fail(submit(flux, sampler=sampler))
    assert failed.error.reason == "INVALID_FIELD"
    assert "Euler, Heun, DPM++ 2M, DPM++ 2S, UniPC" in failed.error.hint


def test_sides_are_multiples_of_a_token(worker: WorkerProcess, flux: ModelManifest) -> None:
    failed = worker.fail(submit(flux, width=72))
    assert (failed.error.reason, failed.error.hint) == ("INVALID_FIELD", "take 64x64")


def test_third_image_of_four_alone_is_the_same(worker: WorkerProcess, flux: ModelManifest) -> None:
    assert_third_of_four_is_the_same_alone(worker, flux)


@covers("batch", form="folder", kind="flux")
def test_mixed_batch_is_close(worker: WorkerProcess, flux: ModelManifest, truth: Truth) -> None:
    asked: dict[str, dict[str, Any]] = {
        "a": {"sampler": "Euler", "steps": 5},
        "b": {"sampler": "DPM++ 2M", "steps": 7, "guidance_scale": 1.0},
        "c": {"sampler": "UniPC", "steps": 6, "guidance_scale": 9.0, "seed": 99},
        "d": {"sampler": "Euler", "steps": 3, "prompt": "a dog"},
    }
    assert_mixed_batch_is_close(worker, flux, truth, "flux", asked)


def test_pictures_of_one_area_and_two_shapes_do_not_share_a_call(
    worker: WorkerProcess, flux: ModelManifest, truth: Truth
) -> None:
    """They have as many tokens, at other places."""
    wide, high = {"width": 128, "height": 64}, {"width": 64, "height": 128}
    images = worker.draw(submit(flux, "high", **high), submit(flux, "wide", **wide))
    assert [(image.width, image.height) for image in images] == [(64, 128), (128, 64)]
    for image, size in zip(images, (high, wide), strict=True):
        assert_same(pixels(image), truth("flux", **size))


def test_weights_are_taken_out_of_the_words(worker: WorkerProcess, flux: ModelManifest, truth: Truth) -> None:
    assert_same(draw(worker, flux, prompt="a (red:1.4) cat"), truth("flux"))


def test_long_prompts(worker: WorkerProcess, flux: ModelManifest, truth: Truth) -> None:
    prompt = "a red cat and a dog " * 12
    assert_same(draw(worker, flux, prompt=prompt), truth("flux", prompt=prompt))


def test_previews(worker: WorkerProcess, flux: ModelManifest) -> None:
    worker.draw(submit(flux, steps=6, preview_every=2, sampler="DPM++ 2M"))
    previews = [frame.step.preview for frame in worker.seen if frame.WhichOneof("frame") == "step"]
    assert any(preview.startswith(b"\xff\xd8") for preview in previews)
