"""Offload: the same pictures with less on the device, which here is the copies that the weights are brought as."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from craft_protos import rungs
from craftd import offload
from craftd.models import folder
from craftd.models.model import ModelFile
from craftd.offload import NetworkSize
from craftd.worker.models.offload import Offloading, size_of
from craftd.worker.quantized import packing
from torch import nn

from tests import tiny_models
from tests.worker.counted import Counted

KINDS = {"sd": "unet", "sdxl": "unet", "sd3": "transformer", "flux": "transformer"}


def _networks(pipe: Any) -> list[nn.Module]:
    return [one for one in pipe.components.values() if isinstance(one, nn.Module)]


@pytest.fixture(params=KINDS)
def pipe(request: pytest.FixtureRequest) -> Iterator[Any]:
    """One of its own: nothing of it is shared with other tests."""
    kind = request.param
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipe = diffusers.DiffusionPipeline.from_pretrained(
            tiny_models.cached(kind), use_safetensors=True, local_files_only=True, **tiny_models.without(kind)
        )
    pipe.set_progress_bar_config(disable=True)
    pipe.craft_denoiser = KINDS[kind]
    yield pipe


def _draw(pipe: Any) -> np.ndarray:
    drawn = pipe("a red cat", width=64, height=64, num_inference_steps=3, generator=torch.Generator().manual_seed(1))
    return np.asarray(drawn.images[0]).astype(int)


def _is_same(drawn: np.ndarray, expected: np.ndarray) -> bool:
    """But for the last bit: where a weight lies in memory decides, on some processors, in which order it is summed."""
    return bool(np.abs(drawn - expected).max() <= 1)


@pytest.mark.parametrize("rung", [rungs.MODEL, rungs.BLOCKS])
def test_the_picture_is_the_same_and_less_is_there(pipe: Any, rung: str) -> None:
    expected, device = _draw(pipe), Counted(_networks(pipe))
    offloading = Offloading(pipe, pipe.craft_denoiser, device)
    offloading.go_to(rung)
    assert _is_same(_draw(pipe), expected)
    assert 0 < device.most_bytes <= offloading.peak_bytes < offload.peak(rungs.NONE, offloading.sizes, "unet")
    offloading.go_to(rungs.NONE)
    assert device.bytes == 0
    assert _is_same(_draw(pipe), expected)


def test_packed_weights_leave_and_come_as_others(pipe: Any) -> None:
    packing.pack(getattr(pipe, pipe.craft_denoiser), "fp8")
    expected, device = _draw(pipe), Counted(_networks(pipe))
    offloading = Offloading(pipe, pipe.craft_denoiser, device)
    offloading.go_to(rungs.BLOCKS)
    assert _is_same(_draw(pipe), expected)
    assert 0 < device.most_bytes <= offloading.peak_bytes


def test_each_rung_has_less_there(pipe: Any) -> None:
    offloading = Offloading(pipe, pipe.craft_denoiser, Counted(_networks(pipe)))
    peaks = [offloading.peak_bytes]
    while offloading.descend():
        peaks.append(offloading.peak_bytes)
    assert peaks == sorted(peaks, reverse=True) and peaks[-1] < peaks[0]
    assert (len(peaks), offloading.rung) == (len(rungs.RUNGS), rungs.BLOCKS)


def test_a_weight_that_takes_another_ones_place_is_computed_with_and_goes_again(pipe: Any) -> None:
    """As merged LoRAs do for a call: whether the network is there when they come, or not."""
    network = getattr(pipe, pipe.craft_denoiser)
    layer = next(one for one in network.modules() if isinstance(one, nn.Linear))
    plain = _draw(pipe)
    own, other = layer.weight.data, torch.zeros_like(layer.weight.data)
    layer.weight.data = other
    expected = _draw(pipe)
    layer.weight.data = own
    offloading = Offloading(pipe, pipe.craft_denoiser, Counted(_networks(pipe)))
    offloading.go_to(rungs.BLOCKS)
    layer.weight.data, own = other, layer.weight.data
    assert _is_same(_draw(pipe), expected) and not _is_same(expected, plain)
    layer.weight.data = own
    assert _is_same(_draw(pipe), plain)


def test_an_error_in_a_block_leaves_nothing_there(pipe: Any) -> None:
    device = Counted(_networks(pipe))
    offloading = Offloading(pipe, pipe.craft_denoiser, device)
    offloading.go_to(rungs.BLOCKS)
    network = getattr(pipe, pipe.craft_denoiser)
    broken = [one for one in network.modules() if isinstance(one, nn.Linear)][-1]
    handle = broken.register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(MemoryError("for a test")))
    with pytest.raises(MemoryError):
        _draw(pipe)
    handle.remove()
    offloading.go_to(rungs.NONE)
    assert device.bytes == 0


@pytest.mark.parametrize(
    ("budget", "rung"),
    [(100, rungs.NONE), (95, rungs.ENCODERS), (75, rungs.MODEL), (50, rungs.BLOCKS), (1, rungs.BLOCKS)],
)
def test_the_first_rung_that_fits_is_taken(budget: int, rung: str) -> None:
    sizes = {
        "transformer": NetworkSize(60, 10, 5),
        "text_encoder": NetworkSize(30, 10, 5),
        "vae": NetworkSize(10, 0, 10),
    }
    assert offload.choose(sizes, "transformer", budget) == rung


@pytest.mark.parametrize("kind", KINDS)
def test_what_headers_tell_is_about_what_is_loaded(kind: str) -> None:
    """Before anything is loaded a plan knows the networks' sizes from the files, and never less than half a block's."""
    root = tiny_models.cached(kind)
    files = [ModelFile(str(path.relative_to(root)), path, path.stat().st_size) for path in root.rglob("*.safetensors")]
    told = offload.sizes_of(folder.blocks_of(files), "fp32", "")
    loaded: Any = diffusers.DiffusionPipeline.from_pretrained(
        root, use_safetensors=True, local_files_only=True, **tiny_models.without(kind)
    )
    assert offload.denoiser_of(told) == KINDS[kind]
    for name, size in told.items():
        if name in loaded.components and loaded.components[name] is not None:
            network = size_of(loaded.components[name])
            assert size.total == pytest.approx(network.total, rel=0.02)
            assert network.by_blocks <= size.total * 1.02
