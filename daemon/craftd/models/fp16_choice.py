"""Whether half of a download suffices: the device computes in half precision."""

from __future__ import annotations

import sys
from pathlib import Path

from craft_protos.settings import WorkerSettings

from craftd.workers.pool import WorkerPool

_NVIDIA = Path("/dev/nvidiactl")


class Fp16Choice:
    """Settings decide, then what a worker has said, then what this machine looks like."""

    def __init__(self, settings: WorkerSettings, pool: WorkerPool) -> None:
        self._settings = settings
        self._pool = pool

    def __call__(self) -> bool:
        asked = self._settings.precision
        said = self._pool.precision if asked == "auto" else asked
        return said in ("fp16", "bf16") if said else self._has_device()

    def _has_device(self) -> bool:
        if self._settings.device == "auto":
            return sys.platform == "darwin" or _NVIDIA.exists()
        return not self._settings.device.startswith("cpu")
