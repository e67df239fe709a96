"""A model that is bigger than its device is loaded all the same, on CUDA."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from craft_protos.codec import from_message
from craft_protos.dispatch import ModelManifest
from craftd.worker.lora.reader import Reader
from craftd.worker.models.loader import Loader
from craftd.worker.process.device import Device

from tests import tiny_models
from tests.worker.client import put_model


def _device(place: str, total_bytes: int) -> Device:
    return Device(torch.device(place), "one of a test", total_bytes, "fp32")


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_model_bigger_than_the_device_is_loaded_with_offload(files: Path, tmp_path: Path) -> None:
    device = _device("cuda:0", 1000)
    message = put_model(tiny_models.cached("sd"), files, "sd-too-big")
    loader = Loader(files, tmp_path, device, Reader(files, lambda _: None))
    before = torch.cuda.memory_allocated()
    runner = loader.load(from_message(ModelManifest, message), lambda _: None)
    assert 0 < runner.resident_bytes < sum(file.size_bytes for file in message.files) / 2
    assert torch.cuda.memory_allocated() - before <= runner.resident_bytes
    runner.close()
