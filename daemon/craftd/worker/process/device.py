"""The device a worker computes on, and in what precision."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass
from typing import Any

import psutil
import torch

_WITHOUT_BF16 = {"SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI"}
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Device:
    """Where and how a worker computes."""

    place: torch.device
    name: str
    total_bytes: int
    precision: str  # fp32, fp16, bf16
    warnings: tuple[str, ...] = ()

    @property
    def dtype(self) -> torch.dtype:
        return DTYPES[self.precision]

    @property
    def is_cpu(self) -> bool:
        return self.place.type == "cpu"

    def used_bytes(self) -> int:
        """Of the device's own memory; 0 where that is the machine's."""
        return torch.cuda.memory_allocated(self.place) if self.place.type == "cuda" else 0


def choose(device: str, precision: str, sharing: int = 1) -> Device:
    """The device asked for; `auto` takes CUDA, then MPS, then the CPU. Each worker that shares it has an equal part."""
    found = torch.device(_best() if device == "auto" else device)
    if found.type == "cuda" and found.index is None:
        found = torch.device("cuda:0")
    precision = usual_precision(found) if precision == "auto" else precision
    return Device(found, _name(found), _total_bytes(found) // sharing, precision, tuple(_warnings(found)))


def usual_precision(device: torch.device) -> str:
    """What is computed in where nothing else is asked for: by what the device has, never by a stopwatch."""
    if device.type != "cpu":
        return "fp16"
    return "bf16" if has_bf16_units() else "fp32"


def has_bf16_units() -> bool:
    """Whether the processor multiplies in bf16 by itself, and oneDNN may use that (its ONEDNN_MAX_CPU_ISA)."""
    if os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper() in _WITHOUT_BF16:
        return False
    known = torch.cpu.get_capabilities()
    return any(known.get(unit) for unit in ("amx_bf16", "avx512_bf16"))


def uploaded(tensor: torch.Tensor, place: torch.device) -> torch.Tensor:
    """A tensor of the CPU's, on the device, without waiting until that has done what it was told before."""
    return tensor.pin_memory().to(place, non_blocking=True) if place.type == "cuda" else tensor.to(place)


def _best() -> str:
    if torch.cuda.is_available():
        return "cuda:0"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return platform.processor() or platform.machine()


def _total_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return int(psutil.virtual_memory().total)


def _warnings(device: torch.device) -> list[str]:
    if device.type == "cuda" or sys.platform == "darwin":
        return []
    return [
        f"the driver sees {name}, but this torch ({torch.__version__}) cannot use it; drawing on {device.type}"
        for name in _driver_gpus()
    ]


def _driver_gpus() -> list[str]:
    import pynvml

    nvml: Any = pynvml
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return []
    try:
        handles = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
        return [str(nvml.nvmlDeviceGetName(handle)) for handle in handles]
    finally:
        nvml.nvmlShutdown()
