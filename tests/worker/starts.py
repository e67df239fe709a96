"""Jobs that begin from pictures, and what diffusers' own image-to-image and inpainting pipelines draw of the same."""

from __future__ import annotations

import copy
import hashlib
import inspect
import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from craft_protos import jobs_pb2
from craft_protos.worker_pb2 import File, ModelManifest, ToWorker
from craftd.worker.families.call_scheduler import KINDS
from craftd.worker.families.samplers import RECIPES, build, is_flow_matching
from diffusers import ChromaImg2ImgPipeline, ChromaPipeline
from PIL import Image

from tests.worker import flows
from tests.worker.client import WorkerProcess, pixels, submit
from tests.worker.families import assert_same
from tests.worker.trained import photo

SIDE = 64
_INPAINTING = ("StableDiffusionInpaintPipeline", "StableDiffusionXLInpaintPipeline", "FluxFillPipeline")
FITS = {"crop": jobs_pb2.FIT_CROP, "fill": jobs_pb2.FIT_FILL, "stretch": jobs_pb2.FIT_STRETCH}


def put(files: Path, image: Image.Image | bytes, name: str = "", **how: Any) -> File:
    """A picture in the store."""
    data = image if isinstance(image, bytes) else encoded(image, **how)
    sha256 = hashlib.sha256(data).hexdigest()
    (files / sha256).write_bytes(data)
    return File(name=name, sha256=sha256, size_bytes=len(data))


def encoded(image: Image.Image, **how: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, **({"format": "PNG"} | how))
    return out.getvalue()


def submit_over(
    model: ModelManifest,
    start: File,
    job_id: str = "job",
    *,
    strength: float = 0.6,
    fit: str = "crop",
    mask: File | None = None,
    refined: dict[str, Any] | None = None,
    **spec: Any,
) -> ToWorker:
    """A job over a start picture; `refined`: a mask's blur, grow, invert, padding."""
    spec["start"] = jobs_pb2.Start(sha256=start.sha256, strength=strength, fit=FITS[fit])
    if mask is not None:
        spec["mask"] = jobs_pb2.Mask(sha256=mask.sha256, **({"blur": 0.0} | (refined or {})))
    return submit(model, job_id, inputs=[start] if mask is None else [start, mask], **spec)


def spotted(size: tuple[int, int] = (SIDE, SIDE), box: tuple[int, int, int, int] = (16, 16, 48, 40)) -> Image.Image:
    """A mask, white in the box."""
    mask = Image.new("L", size)
    mask.paste(255, box)
    return mask


def start_picture(width: int = SIDE, height: int = SIDE) -> Image.Image:
    return photo(3, width, height)


def diffusers_draws(
    pipe: Any,
    image: Image.Image,
    mask: Image.Image | None = None,
    *,
    sampler: str = "Euler",
    seed: int = 7,
    steps: int = 4,
    **call: Any,
) -> np.ndarray:
    """The pixels, in the terms of a job; `pipe` is of text-to-image."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = _over(pipe, is_masked=mask is not None)
        theirs.__dict__["scheduler"] = scheduler_of(pipe, sampler)
        theirs.set_progress_bar_config(disable=True)
        asked: dict[str, Any] = {"prompt": "a red cat", "guidance_scale": 5.0, "image": image} | call
        if mask is not None:
            asked["mask_image"] = mask
        asked = {"width": image.width, "height": image.height} | flows.arguments(pipe, asked)
        accepted = inspect.signature(theirs.__call__).parameters
        given = {key: value for key, value in asked.items() if key in accepted}
        generator = torch.Generator("cpu").manual_seed(seed)
        made = theirs(**given, num_inference_steps=steps, generator=generator, output_type="latent").images
        with torch.inference_mode():
            return _decoded(theirs, made, asked["width"], asked["height"])


def _over(pipe: Any, *, is_masked: bool) -> Any:
    from diffusers import AutoPipelineForImage2Image, AutoPipelineForInpainting

    if type(pipe).__name__ in _INPAINTING:
        return copy.copy(pipe)
    if isinstance(pipe, ChromaPipeline):  # which diffusers' table of them lacks
        return ChromaImg2ImgPipeline(**pipe.components)
    kind: Any = AutoPipelineForInpainting if is_masked else AutoPipelineForImage2Image
    return copy.copy(kind.from_pipe(pipe))


def scheduler_of(pipe: Any, sampler: str) -> Any:
    import diffusers

    own = pipe.scheduler
    if is_flow_matching(own):
        return flows.scheduled(sampler, own)
    if not sampler:
        return type(own).from_config(own.config)
    if sampler not in RECIPES or RECIPES[sampler][0] in KINDS:
        return build(sampler, own, aligned="sd")
    name, overrides = RECIPES[sampler]
    return getattr(diffusers, name).from_config(own.config, **overrides)


def _decoded(pipe: Any, latents: Any, width: int, height: int) -> np.ndarray:
    """As each text-to-image pipeline decodes; SD3's for inpainting forgets a shift."""
    config = pipe.vae.config
    name = type(pipe).__name__
    if "Flux" in name or "Chroma" in name:
        latents = pipe._unpack_latents(latents, height, width, pipe.vae_scale_factor)
    if "Qwen" in name:
        latents = pipe._unpack_latents(latents, height, width, pipe.vae_scale_factor)
        spread, mean = (torch.tensor(each).view(1, -1, 1, 1, 1) for each in (config.latents_std, config.latents_mean))
        image = pipe.vae.decode(latents * spread + mean, return_dict=False)[0][:, :, 0]
    else:
        own = latents / config.scaling_factor + (config.get("shift_factor") or 0.0)
        image = pipe.vae.decode(own.to(pipe.vae.dtype), return_dict=False)[0]
    array = pipe.image_processor.postprocess(image.detach(), output_type="np")[0]
    drawn: np.ndarray = (array * 255).round().astype(int)
    return drawn


Alike = Callable[..., None]


@pytest.fixture
def alike(
    worker: WorkerProcess, files: Path, models: dict[str, ModelManifest], pipelines: Callable[[str], Any]
) -> Alike:
    """Asserts that a picture drawn over a start is the one of diffusers' pipeline."""

    def check(kind: str, image: Image.Image | None = None, **asked: Any) -> None:
        image = image or start_picture()
        size: dict[str, Any] = {"width": image.width, "height": image.height}
        (drawn,) = worker.draw(submit_over(models[kind], put(files, image), **size, **asked))
        assert_same(pixels(drawn), diffusers_draws(pipelines(kind), image, **({"strength": 0.6} | asked)))

    return check
