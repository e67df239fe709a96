"""A device whose memory is counted, without there being one."""

from __future__ import annotations

import torch
from craftd.worker.models.offload import Guest, InTurn
from torch import nn


class Counted(InTurn):
    """A device in the machine's own memory: what is on it are copies. The next block comes ahead, as on CUDA."""

    def __init__(self, networks: list[nn.Module]) -> None:
        super().__init__(torch.device("cpu"))
        self._tensors = [t for network in networks for t in (*network.parameters(), *network.buffers())]
        self._home = {tensor.data_ptr() for tensor in self._tensors}
        self.most_bytes = 0

    def bring(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.clone()

    def begin(self, guest: Guest) -> None:
        guest.come(self.bring)
        self._count()

    def wait(self, guest: Guest) -> None:
        super().wait(guest)
        self._count()

    @property
    def bytes(self) -> int:
        there = {t.data_ptr(): t.nbytes for t in self._tensors if t.data_ptr() not in self._home}
        return sum(there.values())

    def _count(self) -> None:
        self.most_bytes = max(self.most_bytes, self.bytes)
