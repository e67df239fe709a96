"""Guidance rescale, and what an SDXL is told of the picture's size: diffusers' pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from craft_protos.worker_pb2 import ModelManifest

from tests.worker.client import WorkerProcess, provenance, submit
from tests.worker.families import Truth, assert_mixed_batch_is_close, assert_same, draw

_SIZES = {"original_width": 512, "original_height": 768, "crop_left": 32, "crop_top": 8}
_AS_DIFFUSERS_CALLS_THEM = {"original_size": (768, 512), "crops_coords_top_left": (8, 32)}


@pytest.mark.parametrize("kind", ["sd", "sdxl"])
@pytest.mark.parametrize("asked", [{"rescale": 0.7}, {"rescale": 1.0, "sampler": "DPM++ 2M"}, {"rescale": 0.05}])
def test_guidance_rescale(
    worker: WorkerProcess, models: dict[str, ModelManifest], truth: Truth, kind: str, asked: dict[str, Any]
) -> None:
    asked = {"guidance_scale": 9.0, **asked}
    rescale = asked.pop("rescale")
    drawn = draw(worker, models[kind], guidance_rescale=rescale, **asked)
    assert_same(drawn, truth(kind, guidance_rescale=rescale, **asked))
    if rescale > 0.5:
        assert np.abs(drawn - draw(worker, models[kind], **asked)).max() > 1


def test_without_guidance_there_is_nothing_to_rescale(worker: WorkerProcess, sd: ModelManifest, truth: Truth) -> None:
    assert_same(draw(worker, sd, guidance_rescale=0.7, guidance_scale=1.0), truth("sd", guidance_scale=1.0))


@pytest.mark.parametrize("call", [{}, {"width": 64, "height": 96}, {"negative_prompt": "a dog"}])
def test_sizes_that_an_sdxl_is_told(
    worker: WorkerProcess, models: dict[str, ModelManifest], truth: Truth, call: dict[str, Any]
) -> None:
    drawn = draw(worker, models["sdxl"], **_SIZES, **call)
    assert_same(drawn, truth("sdxl", **_AS_DIFFUSERS_CALLS_THEM, **call))
    assert np.abs(drawn - draw(worker, models["sdxl"], **call)).max() > 1


def test_rows_that_differ_share_a_batch(worker: WorkerProcess, models: dict[str, ModelManifest], truth: Truth) -> None:
    asked = {
        "plain": {"steps": 4},
        "rescaled": {"steps": 5, "guidance_rescale": 0.7, "guidance_scale": 9.0},
        "unguided": {"steps": 4, "guidance_scale": 1.0},
    }
    assert_mixed_batch_is_close(worker, models["sdxl"], truth, "sdxl", asked)
    images = worker.draw(submit(models["sdxl"], "told", **_SIZES), submit(models["sdxl"], "as drawn"))
    assert [provenance(image)["batch"] for image in images] == [2, 2]
    assert {image.job_id: provenance(image)["crop_left"] for image in images} == {"told": 32, "as drawn": 0}
