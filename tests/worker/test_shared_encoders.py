"""Two loaded models with one text encoder or VAE: in memory once, and nothing of one's LoRAs is the other's."""

from __future__ import annotations

import gc
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from craft_protos import worker_pb2
from craft_protos.codec import from_message
from craft_protos.dispatch import ModelFile, ModelManifest
from craftd.eviction import Resident, held_bytes, to_evict
from craftd.worker.lora.reader import Reader
from craftd.worker.models import sharing
from craftd.worker.models.loader import Loader
from craftd.worker.models.sharing import SharedEncoders, over_same_tensors
from craftd.worker.process.device import Device
from safetensors.torch import load_file, save_file
from torch import nn

from tests import tiny_models, tiny_networks
from tests.tiny_loras import text_model_peft
from tests.worker.client import WorkerProcess, pixels, put_model
from tests.worker.loras import Make, submit_with

A, B = "a" * 64, "b" * 64


def _encoder() -> nn.Module:
    module: nn.Module = tiny_networks.text_encoder()
    return module


def _addresses(module: nn.Module) -> set[int]:
    return {tensor.data_ptr() for tensor in (*module.parameters(), *module.buffers())}


def _manifest(*files: tuple[str, str]) -> ModelManifest:
    return ModelManifest("it", files=tuple(ModelFile(path, sha256, 4) for path, sha256 in files))


def test_the_tensors_are_the_same_memory_and_the_modules_are_not() -> None:
    module = _encoder()
    other = over_same_tensors(module)
    assert _addresses(other) == _addresses(module)
    assert not {id(one) for one in module.modules()} & {id(one) for one in other.modules()}
    first, second = next(module.parameters()), next(other.parameters())
    before = first.data.clone()
    second.data = torch.zeros_like(second)  # as merged weights take the place of a layer's own
    assert torch.equal(first, before)


def test_what_is_shared_goes_with_its_last_user() -> None:
    shared = SharedEncoders()
    first = _encoder()
    shared.offer("key", first)
    second = shared.find("key")
    assert second is not None and _addresses(second) == _addresses(first)
    del first
    gc.collect()
    third = shared.find("key")
    assert third is not None
    del second, third
    gc.collect()
    assert shared.find("key") is None


def test_a_model_that_leaves_the_device_holds_nothing_of_it() -> None:
    shared = SharedEncoders()
    pipe = type("Pipe", (), {"components": {"text_encoder": _encoder()}})
    shared.offer("key", pipe.components["text_encoder"])
    sharing.release(pipe)
    gc.collect()
    assert shared.find("key") is None


def test_equal_files_are_shared_whatever_they_are_called() -> None:
    """In one precision and as one class."""
    asked = _manifest(("text_encoder/config.json", A), ("text_encoder/model.safetensors", B))
    other = _manifest(("text_encoder_2/config.json", A), ("text_encoder_2/x.safetensors", B))
    one, two = (
        sharing.keys(asked, "fp16", {"text_encoder": "T5"}),
        sharing.keys(other, "fp16", {"text_encoder_2": "T5"}),
    )
    assert one["text_encoder"] == two["text_encoder_2"]
    assert sharing.keys(asked, "bf16", {"text_encoder": "T5"}) != one
    assert sharing.keys(asked, "fp16", {"text_encoder": "T5Encoder"}) != one
    assert sharing.keys(_manifest(("unet/x.safetensors", A)), "fp16", {}) == {}
    vae = _manifest(("vae/x.safetensors", A))
    assert set(sharing.keys(vae, "torch.bfloat16", {})) == {"vae"} and sharing.keys(vae, "torch.float16", {}) == {}
    assert sharing.keys(_manifest(("text_encoder/config.json", A)), "fp16", {}) == {}


def test_what_they_share_counts_once() -> None:
    idle = [Resident((name, ""), 100, at, is_idle=True, shared={"t5": 60}) for at, name in enumerate("ab")]
    assert held_bytes(idle) == 140
    assert to_evict(idle, 100, 180, {"t5": 60}) == []  # 40 more than they hold
    assert to_evict(idle, 100, 179, {"t5": 60}) == idle[:1]
    assert to_evict(idle, 100, 140) == idle  # one going gives 40 back; the other, what they shared


def _bytes(*modules: nn.Module) -> int:
    """Of their tensors' memory, each counted once."""
    storages = [tensor.untyped_storage() for module in modules for tensor in (*module.parameters(), *module.buffers())]
    return sum({one.data_ptr(): one.nbytes() for one in storages}.values())


def test_two_models_load_what_they_have_in_common_once(
    pair: dict[str, worker_pb2.ModelManifest], files: Path, tmp_path: Path
) -> None:
    device = Device(torch.device("cpu"), "one of a test", 1 << 40, "fp32")
    loader = Loader(files, tmp_path, device, Reader(files, lambda _: None))
    runners: list[Any] = [loader.load(from_message(ModelManifest, pair[name]), lambda _: None) for name in pair]
    first, second = (runner.pipe.components for runner in runners)
    assert _addresses(first["text_encoder"]) == _addresses(second["text_encoder"])
    assert not _addresses(first["unet"]) & _addresses(second["unet"])
    alone, latents = _bytes(first["vae"]), torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    assert _bytes(first["vae"], second["vae"]) == alone
    with torch.inference_mode():
        drawn = [runner._family.decode(latents)[0].astype(int) for runner in runners]  # which lays weights out anew
    kernel = second["vae"].decoder.conv_in.weight
    assert kernel.is_contiguous(memory_format=torch.channels_last)
    assert np.abs(drawn[0] - drawn[1]).max() <= 1
    third = loader.load(from_message(ModelManifest, pair["one"]), lambda _: None)
    runners.append(third)
    assert _bytes(*(runner.pipe.components["vae"] for runner in runners)) == alone
    for runner in runners:
        runner.close()


@pytest.fixture
def pair(tmp_path: Path, files: Path) -> dict[str, worker_pb2.ModelManifest]:
    """Two models that differ in their UNets alone."""
    other = tmp_path / "other"
    shutil.copytree(tiny_models.cached("sd"), other)
    path = other / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({name: tensor * 1.05 for name, tensor in load_file(path).items()}, path)
    return {"one": put_model(tiny_models.cached("sd"), files, "one"), "two": put_model(other, files, "two")}


@pytest.mark.parametrize("dora", [False, True])
def test_mixed_jobs_of_both_models(
    worker: WorkerProcess, pair: dict[str, worker_pb2.ModelManifest], make: Make, dora: bool
) -> None:
    """With a LoRA of the text encoder, in slots or (DoRA) merged: each picture is what it is alone."""
    lora = make("sd", f"te-{dora}", text_model_peft, seed=7, components=["text_encoder"], strength=4.0, dora=dora)
    wanted = [(name, has) for has in (True, False) for name in pair]

    def job(name: str, job_id: str, *, has_lora: bool) -> worker_pb2.ToWorker:
        return submit_with(pair[name], [(lora, 1.0)] if has_lora else [], job_id)

    alone = {}
    for name, has in wanted:
        worker.send(worker_pb2.ToWorker(unload=worker_pb2.Unload(model="two" if name == "one" else "one")))
        alone[name, has] = pixels(worker.draw(job(name, f"alone-{name}-{has}-{dora}", has_lora=has))[0])
    for name in pair:
        assert np.abs(alone[name, True] - alone[name, False]).max() > 1
    drawn = worker.draw(*(job(name, f"{name} {has}", has_lora=has) for name, has in wanted))
    got = {image.job_id: pixels(image) for image in drawn}
    off = {one: int(np.abs(got[f"{one[0]} {one[1]}"] - expected).max()) for one, expected in alone.items()}
    assert max(off.values()) <= 1, off
