"""torch's global random numbers, which some pipelines draw beside those of the generator that they are given."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Randomness:
    """The global random numbers of one picture: they follow from its seed, whatever else is drawn between its turns.

    Only one thread may draw at a time: torch's global generators are those of the whole process.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self._global = _generators(device)
        self._states = [torch.Generator(one.device).manual_seed(seed).get_state() for one in self._global]

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The global generators go on from where this picture left them; afterwards they are as they were before."""
        before = self._put(self._states)
        try:
            yield
        finally:
            self._states = self._put(before)

    def _put(self, states: list[torch.Tensor]) -> list[torch.Tensor]:
        """The states that were there."""
        before = [one.get_state() for one in self._global]
        for one, state in zip(self._global, states, strict=True):
            one.set_state(state)
        return before


def _generators(device: torch.device) -> list[torch.Generator]:
    """Of the CPU, and of the device where that is CUDA's."""
    if device.type != "cuda":
        return [torch.default_generator]
    index = torch.cuda.current_device() if device.index is None else device.index
    return [torch.default_generator, torch.cuda.default_generators[index]]
