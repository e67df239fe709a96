"""Clip skip: AUTOMATIC1111's count of layers, and diffusers' pictures."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from craft_protos import infotexts
from craft_protos.worker_pb2 import ModelManifest
from PIL import Image

from tests.worker.client import WorkerProcess, provenance, submit
from tests.worker.families import Truth, assert_same, draw


@pytest.fixture
def as_diffusers_finds_it(pipelines: Callable[[str], Any]) -> Iterator[None]:
    """Its pipeline looks for the last layer's norm where transformers before 5 had it.

    Its LoRA loader tells by the same attribute how the layers are named: what stayed here would break it.
    """
    encoder = pipelines("sd").text_encoder
    object.__setattr__(encoder, "text_model", encoder)
    yield
    object.__delattr__(encoder, "text_model")


@pytest.mark.usefixtures("as_diffusers_finds_it")
@pytest.mark.parametrize(("clip_skip", "diffusers"), [(1, None), (2, 1), (3, 2)])
def test_sd(worker: WorkerProcess, sd: ModelManifest, truth: Truth, clip_skip: int, diffusers: int | None) -> None:
    call = {"negative_prompt": "a dog"}
    drawn = draw(worker, sd, clip_skip=clip_skip, **call)
    assert_same(drawn, truth("sd", clip_skip=diffusers, **call))
    assert (np.abs(drawn - draw(worker, sd, **call)).max() > 1) == (clip_skip > 1)


@pytest.mark.parametrize(("clip_skip", "diffusers"), [(1, None), (2, None), (3, 1)])
def test_sdxl_is_never_read_after_its_second_last_layer(
    worker: WorkerProcess, models: dict[str, ModelManifest], truth: Truth, clip_skip: int, diffusers: int | None
) -> None:
    assert_same(draw(worker, models["sdxl"], clip_skip=clip_skip), truth("sdxl", clip_skip=diffusers))


def test_an_encoder_with_fewer_layers_says_so(worker: WorkerProcess, sd: ModelManifest) -> None:
    failed = worker.fail(submit(sd, clip_skip=12))
    assert (failed.error.reason, "clip_skip" in failed.error.message) == ("INVALID_FIELD", True)


def test_the_file_tells_it(worker: WorkerProcess, sd: ModelManifest) -> None:
    usual, skipped = worker.draw(submit(sd, "a"), submit(sd, "b", clip_skip=2))
    assert (provenance(usual)["clip_skip"], provenance(skipped)["clip_skip"]) == (1, 2)
    texts = [Image.open(io.BytesIO(one.data)).text["parameters"] for one in (usual, skipped)]  # type: ignore[attr-defined]
    assert [infotexts.parse(text).get("Clip skip") for text in texts] == [None, "2"]
