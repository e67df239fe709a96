"""Half precision: not the same picture to the last bit, but the same picture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from craft_protos.worker_pb2 import ModelManifest

from tests.worker import client
from tests.worker.client import pixels, provenance, submit

LEAST_PSNR = 25.0  # decibels, against fp32


def _psnr(drawn: np.ndarray, expected: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / max(((drawn - expected) ** 2).mean(), 1e-9)))


def test_bf16_on_the_cpu(files: Path, sd: ModelManifest, truth: Callable[..., np.ndarray]) -> None:
    with client.worker(files, "--precision", "bf16") as started:
        assert started.seen[0].hello.precision == "bf16"
        (image,) = started.draw(submit(sd))
        assert provenance(image)["precision"] == "bf16"
        assert _psnr(pixels(image), truth()) > LEAST_PSNR


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("kind", ["sd", "sd-text-time", "pixart"])
def test_a_cuda_device_draws_the_same_picture(
    files: Path, models: dict[str, ModelManifest], truth: Callable[..., np.ndarray], kind: str
) -> None:
    sampler = "" if kind == "pixart" else "Euler a"
    with client.worker(files, "--device", "cuda:0") as started:
        assert started.seen[0].hello.device == "cuda:0"
        first, *others = started.draw(*(submit(models[kind], f"job{i}", sampler=sampler) for i in range(4)))
        expected = truth(kind, sampler=sampler)
        for image in (first, *others):
            assert _psnr(pixels(image), expected) > LEAST_PSNR
