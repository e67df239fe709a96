"""A model that is bigger than its device is loaded all the same, on CUDA."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from craftd.worker.device import Device
from craftd.worker.loader import Loader, exceeds
from craftd.worker.lora.reader import Reader
from craftd.worker.lora.residents import Housing
from craftd.worker.messages import Manifest, ManifestFile

from tests import tiny_models
from tests.worker.client import put_model


def _device(place: str, total_bytes: int) -> Device:
    return Device(torch.device(place), "one of a test", total_bytes, "fp32")


@pytest.mark.parametrize(
    ("place", "total_bytes", "expected"),
    [("cuda:0", 10_000, True), ("cuda:0", 1_000_000, False), ("cpu", 10_000, False), ("mps", 10_000, False)],
)
def test_only_a_cuda_device_can_be_too_small(place: str, total_bytes: int, expected: bool) -> None:
    assert exceeds(_device(place, total_bytes), 9_000) is expected


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_model_bigger_than_the_device_is_loaded_with_offload(files: Path, tmp_path: Path) -> None:
    device = _device("cuda:0", 1000)
    message = put_model(tiny_models.cached("sd"), files, "sd-too-big")
    listed = tuple(ManifestFile(file.path, file.sha256, file.size_bytes) for file in message.files)
    loader = Loader(files, tmp_path, device, Housing(Reader(files, lambda _: None), device.place))
    before = torch.cuda.memory_allocated()
    runner = loader.load(
        Manifest("sd-too-big", "sd", "StableDiffusionPipeline", message.sha256, listed), lambda _: None
    )
    assert runner.resident_bytes > device.total_bytes
    assert torch.cuda.memory_allocated() - before < runner.resident_bytes / 2
    runner.close()
