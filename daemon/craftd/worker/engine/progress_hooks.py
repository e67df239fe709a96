"""Hooks that count a model's blocks as they are computed: they prove that a long computation makes progress.

A step of a big model on a CPU, or a pipeline that cannot be interrupted, may take longer than
the front waits for a sign of progress; its blocks do not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn


class ProgressHooks:
    """Counts blocks, and calls `listener` after each of them, in the thread that computes."""

    def __init__(self) -> None:
        self.blocks = 0
        self.listener: Callable[[], None] = lambda: None

    def watch(self, pipe: Any) -> None:
        """Count the blocks of all of a pipeline's networks."""
        for part in pipe.components.values():
            if isinstance(part, nn.Module):
                for block in _blocks(part):
                    block.register_forward_hook(self._moved)

    def watch_backward(self, network: nn.Module) -> None:
        """Count the blocks of a network as gradients come back through them."""
        for block in _blocks(network):
            block.register_forward_hook(self._listen_to_gradient)

    def _listen_to_gradient(self, _block: nn.Module, _inputs: Any, output: Any) -> None:
        tensor = output[0] if isinstance(output, tuple) else output
        if isinstance(tensor, torch.Tensor) and tensor.requires_grad:
            hooked: Any = tensor
            hooked.register_hook(self._moved)

    def _moved(self, *_: Any) -> None:
        self.blocks += 1
        self.listener()


def _blocks(network: nn.Module) -> Iterator[nn.Module]:
    """What stands in lists: down, mid and up blocks, transformer layers, and the network itself."""
    yield network
    for module in network.modules():
        if isinstance(module, nn.ModuleList):
            yield from module
