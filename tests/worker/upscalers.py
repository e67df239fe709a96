"""Tiny upscalers with random weights, as files."""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import torch
from craft_protos import jobs_pb2
from craft_protos.worker_pb2 import ModelFile, ModelManifest, ToWorker
from craftd.worker.process.device import Device
from craftd.worker.upscaling import reading
from craftd.worker.upscaling.network import Network
from safetensors.torch import save_file

CPU = Device(torch.device("cpu"), "cpu", 0, "fp32")


def compact(scale: int = 4, *, channels: int = 3, convolutions: int = 2, features: int = 8) -> dict[str, torch.Tensor]:
    """The tensors of a compact network, whose pictures are far from flat."""
    torch.manual_seed(3)
    found: dict[str, torch.Tensor] = {}
    sides = [channels, *[features] * (convolutions + 1), channels * scale**2]
    for place, (given, made) in enumerate(itertools.pairwise(sides)):
        found[f"body.{2 * place}.weight"] = torch.randn(made, given, 3, 3) * 0.2
        found[f"body.{2 * place}.bias"] = torch.randn(made) * 0.05
        if place <= convolutions:
            found[f"body.{2 * place + 1}.weight"] = torch.full((made,), 0.1)
    return found


def saved(path: Path, tensors: dict[str, torch.Tensor]) -> Path:
    save_file(tensors, path)
    return path


def network(path: Path, **how: Any) -> Network:
    return Network(reading.read(saved(path, compact(**how)), path.name), CPU)


def noisy(width: int, height: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (height, width, channels), dtype=np.uint8)


def put(files: Path, name: str = "x4", **how: Any) -> ModelManifest:
    """In a worker's store; without `how`, Lanczos."""
    if not how:
        return ModelManifest(name="lanczos", family="upscaler", pipeline="Lanczos", sha256="0" * 64)
    path = saved(files / "upscaler.tmp", compact(**how))
    data = path.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    path.replace(files / sha256)
    file = ModelFile(path="upscaler/component.safetensors", sha256=sha256, size_bytes=len(data))
    return ModelManifest(name=name, family="upscaler", pipeline="x", sha256=sha256, files=[file])


def with_upscaler(
    sent: ToWorker,
    upscaler: ModelManifest,
    *,
    times: float = 0,
    hires: jobs_pb2.Hires | None = None,
) -> ToWorker:
    """A job whose pictures go through it, at the end or before they are drawn again."""
    spec = sent.dispatch.generate
    if times:
        spec.upscale.CopyFrom(jobs_pb2.Upscale(model=upscaler.name, scale=times))
    if hires is not None:
        hires.upscaler = upscaler.name
        spec.hires.CopyFrom(hires)
    sent.dispatch.later_models.append(upscaler)
    return sent
