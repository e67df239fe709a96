"""Which workers the pool has: one for each device, or several that share one."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from craft_protos.settings import AUTO_DEVICES, WorkerSettings

_ENTRY = re.compile(r"([a-z]+(?::\d+)?)(?:\*(\d+))?")
_CUDA = "cuda"


@dataclass(frozen=True)
class Seat:
    """One worker's place: its name among several, and the settings that it is started with."""

    name: str
    settings: WorkerSettings
    sharing: int = 1  # workers on its device; each has so large a part of the memory


def seats(settings: WorkerSettings, count_gpus: Callable[[], int] | None = None) -> tuple[Seat, ...]:
    """Those of `[worker] devices`; `auto` is one for each CUDA device, or one on whatever there is."""
    devices = tuple(_devices(settings, count_gpus or count_cuda))
    sharing = Counter(devices)
    numbers: Counter[str] = Counter()
    made = []
    for device in devices:
        numbers[device] += 1
        name = device if sharing[device] == 1 else f"{device}-{numbers[device]}"
        name = name if len(devices) > 1 else ""  # then it is called as the device calls itself
        made.append(Seat(name, _of_device(settings, device, sharing[device]), sharing[device]))
    return tuple(made)


def count_cuda() -> int:
    """How many CUDA devices a worker would see; 0 without a driver."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([one for one in visible.split(",") if one.strip() and one.strip() != "-1"])
    import pynvml  # few machines have several, and its library is looked for where it is imported

    nvml: Any = pynvml
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return 0
    try:
        return int(nvml.nvmlDeviceGetCount())
    finally:
        nvml.nvmlShutdown()


def _devices(settings: WorkerSettings, count_gpus: Callable[[], int]) -> Iterator[str]:
    if settings.devices == AUTO_DEVICES:
        gpus = count_gpus() if settings.device == "auto" else 0
        yield from (f"{_CUDA}:{number}" for number in range(gpus)) if gpus > 1 else (settings.device,)
        return
    for entry in settings.devices.split(","):
        found = _ENTRY.fullmatch(entry.strip())
        assert found is not None, entry  # as the setting's rule says
        yield from [found[1]] * int(found[2] or 1)


def _of_device(settings: WorkerSettings, device: str, sharing: int) -> WorkerSettings:
    """Workers that share the processor share its cores."""
    is_cpu, threads = not device.startswith((_CUDA, "mps")), settings.threads
    if is_cpu and sharing > 1 and not threads:
        threads = max(1, (os.cpu_count() or 1) // sharing)
    return replace(settings, device=device, threads=threads)
