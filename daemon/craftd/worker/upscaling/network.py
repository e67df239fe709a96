"""An upscaler's network on its device: pixels in, larger ones out."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from craftd.worker.output.picture import Pixels
from craftd.worker.process.device import Device
from craftd.worker.upscaling.tiles import Numbers

_NAMES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}


class Network:
    """Calls one at a time."""

    def __init__(self, descriptor: Any, device: Device) -> None:
        """`descriptor`: Spandrel's, which goes to the device."""
        self.scale = int(descriptor.scale)
        self.is_whole = descriptor.tiling.name == "INTERNAL"  # it makes tiles itself
        self._is_grey = descriptor.input_channels == 1
        self._device = device.place
        self._dtype = _dtype(descriptor, device)
        self._layout = torch.channels_last if device.is_cpu else torch.contiguous_format
        self._descriptor = descriptor.to(device.place, self._dtype).eval()
        self._descriptor.model.to(memory_format=self._layout)

    @property
    def precision(self) -> str:
        return _NAMES[self._dtype]

    @property
    def size_bytes(self) -> int:
        model = self._descriptor.model
        return sum(one.numel() * one.element_size() for one in (*model.parameters(), *model.buffers()))

    @torch.inference_mode()
    def __call__(self, pixels: Pixels) -> Numbers:
        """Of (height, width, 3); not rounded."""
        given = torch.from_numpy(pixels.astype(np.float32) / 255).permute(2, 0, 1)
        batch = given[:, None] if self._is_grey else given[None]
        made = self._descriptor(batch.to(self._device, self._dtype).contiguous(memory_format=self._layout))
        planes = made[:, 0] if self._is_grey else made[0]
        numbers: Numbers = planes.float().clamp(0, 1).mul(255).permute(1, 2, 0).contiguous().cpu().numpy()
        return numbers


def _dtype(descriptor: Any, device: Device) -> torch.dtype:
    """The worker's own, where the architecture is known to compute in it."""
    if device.dtype == torch.float16 and descriptor.supports_half:
        return torch.float16
    is_half = device.dtype in (torch.float16, torch.bfloat16)
    return torch.bfloat16 if is_half and descriptor.supports_bfloat16 else torch.float32
