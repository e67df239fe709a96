"""Networks with packed layers, and the same with the numbers that those stand for: the truth about them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from craft_protos.codec import from_message
from craft_protos.dispatch import Dispatch
from craft_protos.dispatch import ModelManifest as Manifest
from craft_protos.worker_pb2 import ModelManifest, ToWorker
from craftd.worker.families.base import Runner
from craftd.worker.lora.reader import Reader
from craftd.worker.models.loader import Loader
from craftd.worker.process.device import Device
from craftd.worker.quantized.layers import PackedConvolution, PackedLinear, put
from torch import nn

from tests.worker.client import submit

Network = TypeVar("Network", bound=nn.Module)
CPU = Device(torch.device("cpu"), "one of a test", 1 << 40, "fp32")


def unpacked(network: Network) -> Network:
    """A copy whose layers are torch's own, with the packed weights as numbers."""
    plain = copy.deepcopy(network)
    for path, layer in list(plain.named_modules()):
        if isinstance(layer, PackedLinear | PackedConvolution):
            put(plain, path, _plain(layer))
    return plain


def packed_layers(network: nn.Module) -> dict[str, PackedLinear | PackedConvolution]:
    return {
        path: layer for path, layer in network.named_modules() if isinstance(layer, PackedLinear | PackedConvolution)
    }


def load(message: ModelManifest, files: Path, work_folder: Path) -> Runner:
    """As a worker does, in this process."""
    reader = Reader(files, lambda _: None)
    return Loader(files, work_folder, CPU, reader).load(manifest_of(message), lambda _: None)


def manifest_of(message: ModelManifest) -> Manifest:
    return from_message(Dispatch, submit(message).dispatch).model


def draw(runner: Runner, sent: ToWorker) -> np.ndarray:
    """The one image of a job, without LoRAs that have to be read."""
    job = from_message(Dispatch, sent.dispatch)
    drawing = runner.begin(job, job.drawing.seed, {})
    while not drawing.is_done:
        assert runner.advance([drawing], with_preview=[False]) == [None]
    (picture,) = runner.render([drawing])
    drawing.close()
    return picture.astype(int)


def _plain(layer: PackedLinear | PackedConvolution) -> nn.Module:
    plain: Any
    if isinstance(layer, PackedLinear):
        plain = nn.Linear(layer.in_features, layer.out_features, layer.bias is not None)
    else:
        how: dict[str, Any] = {"stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation}
        how |= {"groups": layer.groups, "bias": layer.bias is not None}
        plain = nn.Conv2d(layer.in_channels, layer.out_channels, layer.kernel_size, **how)
    plain.weight.data = layer.dense_weight()
    if layer.bias is not None:
        plain.bias.data = layer.bias.data
    return plain.to(layer.compute_dtype).eval()
