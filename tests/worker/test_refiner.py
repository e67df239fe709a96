"""SDXL's refiner goes on with the model's latents: diffusers' ensemble of experts."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import craftd
import numpy as np
import pytest
import torch
from craft_protos import jobs_pb2
from craft_protos.generate import Refiner
from craft_protos.provenance import request
from craft_protos.worker_pb2 import ModelManifest, ToWorker
from PIL import Image

from tests.matrix import covers
from tests.worker.client import WorkerProcess, pixels, provenance, submit
from tests.worker.families import assert_same
from tests.worker.starts import Alike, put, scheduler_of, start_picture, submit_over
from tests.worker.upscalers import put as put_upscaler
from tests.worker.upscalers import with_upscaler

Pipelines = Callable[[str], Any]
STEPS = 6


def refined(sent: ToWorker, refiner: ModelManifest, switch: float = 0.5) -> ToWorker:
    sent.dispatch.generate.refiner.CopyFrom(jobs_pb2.Refiner(model=refiner.name, switch=switch))
    sent.dispatch.later_models.append(refiner)
    return sent


def theirs(
    pipelines: Pipelines, *, sampler: str, start: Image.Image | None = None, switch: float = 0.5, **call: Any
) -> np.ndarray:
    """The two pipelines' picture, with one generator."""
    from diffusers import StableDiffusionXLImg2ImgPipeline

    base, refiner = pipelines("sdxl"), copy.copy(pipelines("sdxl-refiner"))
    base = copy.copy(base if start is None else StableDiffusionXLImg2ImgPipeline.from_pipe(base))
    generator = torch.Generator("cpu").manual_seed(7)
    shared = {"prompt": "a red cat", "guidance_scale": 5.0, "num_inference_steps": STEPS, "generator": generator} | call
    first = {"width": 64, "height": 64} if start is None else {"image": start, "strength": 0.8}
    for pipe in (base, refiner):
        pipe.__dict__["scheduler"] = scheduler_of(pipe, sampler)
        pipe.set_progress_bar_config(disable=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        latents = base(**shared, **first, denoising_end=switch, output_type="latent").images
        made = refiner(**shared, image=latents, denoising_start=switch, output_type="np").images[0]
    return np.asarray((made * 255).round().astype(int))


@pytest.mark.parametrize(
    ("sampler", "more"),
    [
        ("Euler", {}),
        ("Euler a", {"guidance_scale": 1.0}),
        ("DPM++ 2M Karras", {"negative_prompt": "a dog"}),
        ("Heun", {"switch": 0.65}),
    ],
)
def test_it_is_diffusers_ensemble_of_experts(
    worker: WorkerProcess, models: dict[str, ModelManifest], pipelines: Pipelines, sampler: str, more: dict[str, Any]
) -> None:
    switch = more.get("switch", 0.5)
    asked = {name: value for name, value in more.items() if name != "switch"}
    job = refined(submit(models["sdxl"], steps=STEPS, sampler=sampler, **asked), models["sdxl-refiner"], switch)
    (made,) = worker.draw(job)
    assert_same(pixels(made), theirs(pipelines, sampler=sampler, **more))
    told = provenance(made)
    assert told["refiner"] == {"model": "sdxl-refiner", "switch": switch, "sha256": models["sdxl-refiner"].sha256}
    assert request(told, ()).refiner == Refiner("sdxl-refiner", switch)
    assert told["model"]["name"] == "sdxl" and "upscalers" not in told
    steps = [(frame.step.step, frame.step.of) for frame in worker.seen if frame.WhichOneof("frame") == "step"]
    assert steps[-1][0] == steps[-1][1]


def test_it_goes_on_over_a_start_picture(
    worker: WorkerProcess, files: Path, models: dict[str, ModelManifest], pipelines: Pipelines
) -> None:
    image = start_picture()
    job = submit_over(models["sdxl"], put(files, image), steps=STEPS, strength=0.8)
    (made,) = worker.draw(refined(job, models["sdxl-refiner"], 0.7))
    assert_same(pixels(made), theirs(pipelines, sampler="Euler", start=image, switch=0.7))


def test_rows_with_and_without_it_share_their_calls(
    worker: WorkerProcess, files: Path, models: dict[str, ModelManifest]
) -> None:
    """With a second drawing it is that one's last steps that are the refiner's."""
    sdxl, refiner = models["sdxl"], models["sdxl-refiner"]
    again = {"scale": 1.5, "width": 96, "height": 96, "strength": 0.7, "steps": STEPS}

    def jobs() -> list[ToWorker]:
        return [
            refined(submit(sdxl, "a", seed=1, steps=STEPS), refiner),
            refined(submit(sdxl, "b", seed=2, steps=STEPS, sampler="DPM++ 2M"), refiner, 0.7),
            submit(sdxl, "c", seed=3, steps=STEPS),
            refined(with_upscaler(submit(sdxl, "d"), put_upscaler(files), hires=jobs_pb2.Hires(**again)), refiner, 0.7),
        ]

    alone = [image for job in jobs() for image in worker.draw(job)]
    together = worker.draw(*jobs())
    assert max(provenance(image)["batch"] for image in together) > 1
    for one, other in zip(alone, together, strict=True):
        assert np.abs(pixels(one) - pixels(other)).max() <= 1
    assert together[3].width == 96


@pytest.mark.parametrize("switch", [0.0004, 0.999])
def test_a_switch_that_leaves_one_of_them_nothing_is_refused(
    worker: WorkerProcess, models: dict[str, ModelManifest], switch: float
) -> None:
    job = refined(submit(models["sdxl"], steps=2, sampler="Euler SGM Uniform"), models["sdxl-refiner"], switch)
    error = worker.fail(job).error
    assert error.reason == "INVALID_FIELD" and error.message.startswith("refiner.switch: ")


@covers("draw", form="folder", kind="sdxl-refiner")
@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_alone_it_draws_over_a_picture(alike: Alike, guidance: float) -> None:
    alike("sdxl-refiner", guidance_scale=guidance)


def test_the_carried_configuration_is_the_published_one() -> None:
    """Numbers of Stability's configs/inference/sd_xl_refiner.yaml, in diffusers' words."""
    channels, multiples, head, scores = 384, (1, 2, 4, 4), 64, 5
    folder = Path(craftd.__file__).parent / "architectures" / "sdxl-refiner"
    unet = json.loads((folder / "unet" / "config.json").read_text())
    assert unet["block_out_channels"] == [channels * one for one in multiples]
    assert unet["attention_head_dim"] == [channels * one // head for one in multiples]
    assert unet["down_block_types"] == ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"]
    assert unet["up_block_types"] == ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"]
    assert (unet["transformer_layers_per_block"], unet["cross_attention_dim"], unet["layers_per_block"]) == (4, 1280, 2)
    assert unet["projection_class_embeddings_input_dim"] == 1280 + scores * unet["addition_time_embed_dim"] == 2560
    assert unet["use_linear_projection"] and unet["in_channels"] == 4
    assert json.loads((folder / "vae" / "config.json").read_text())["scaling_factor"] == 0.13025
