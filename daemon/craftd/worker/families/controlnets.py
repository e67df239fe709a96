"""Control models beside a denoiser (Zhang et al. 2023): what they read off pictures is added to what its blocks say.

A control model is called once for all rows that have a picture for it, and for no others; rows without get noughts.
How one is called, and as which arguments the denoiser takes what it says, is for the denoiser's family to say.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from craftd.worker.families.base import ModelRow
from craftd.worker.families.controls import RowControl

Residuals = Mapping[str, Sequence[torch.Tensor]]  # by the denoiser's argument that takes them; rows first


@dataclass(frozen=True)
class Call:
    """One control model's call: for the model rows of these numbers, each once, with its picture."""

    network: Any
    numbers: tuple[int, ...]
    controls: tuple[RowControl, ...]

    @property
    def pictures(self) -> torch.Tensor:
        return torch.cat([one.picture for one in self.controls])

    def scales(self, dimensions: int) -> torch.Tensor:
        """rows, 1, ...: of so many dimensions."""
        given = [one.scale for one in self.controls]
        scales = torch.tensor(given, dtype=self.network.dtype, device=self.controls[0].picture.device)
        return scales.view(-1, *[1] * (dimensions - 1))

    @property
    def rows(self) -> list[int]:
        return list(self.numbers)

    def modes(self, known: Mapping[str, int]) -> torch.Tensor:
        """rows, 1: what each picture shows, for a network that reads several kinds."""
        given = [known[one.kind] for one in self.controls]
        return torch.tensor(given, device=self.controls[0].picture.device)[:, None]

    def of(self, batch: torch.Tensor) -> torch.Tensor:
        """What the call's rows have of it, in the network's precision."""
        return batch[self.rows].to(self.network.dtype)

    def among(self, some: torch.Tensor, count: int) -> torch.Tensor:
        """Of so many model rows, with noughts for those that are not the call's."""
        if len(self.numbers) == count:
            return some
        rows = torch.tensor(self.numbers, device=some.device)
        return some.new_zeros((count, *some.shape[1:])).index_add_(0, rows, some)


def residuals(
    order: Sequence[ModelRow], read: Callable[[Call], Residuals], dtype: torch.dtype, *, guided: int = 0
) -> dict[str, list[torch.Tensor]]:
    """What the control models say of the model rows of one call, added up; nothing where no row is controlled now.

    `read`: one control model's residuals for its own rows. `guided`: how many of the first rows have no text.
    """
    total: dict[str, list[torch.Tensor]] = {}
    for call in _calls(order, guided):
        for name, said in read(call).items():
            if not said:
                continue
            among = _each(lambda one, call=call: call.among(one.to(dtype), len(order)), said)
            total[name] = _each(torch.add, total[name], among) if name in total else among
    return total


def spread(
    said: Sequence[torch.Tensor] | None, blocks: int, *, repeats: bool = False, is_even: bool = False
) -> list[torch.Tensor]:
    """One for each of a transformer's blocks: for several that follow one another, or over and over.

    `is_even`: all of them are taken; elsewhere the last may be left out, as the networks' makers have it.
    """
    if not said:
        return []
    each = blocks / len(said) if is_even else math.ceil(blocks / len(said))
    return [said[block % len(said) if repeats else int(block / each)] for block in range(blocks)]


def _each(make: Callable[..., torch.Tensor], *said: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Of what stands there several times it is made once: these are as large as what the blocks compute."""
    places = list(zip(*said, strict=True))
    made = {key: make(*place) for key, place in {tuple(map(id, place)): place for place in places}.items()}
    return [made[tuple(map(id, place))] for place in places]


def _calls(order: Sequence[ModelRow], guided: int) -> list[Call]:
    """One that reads a picture as a whole is not shown the rows without text, as diffusers has it."""
    found: dict[tuple[int, int], list[tuple[int, RowControl]]] = defaultdict(list)
    for number, row in enumerate(order):
        times: Counter[int] = Counter()
        for control in row.controls:
            if number >= guided or not control.network.config.get("global_pool_conditions"):
                times[id(control.network)] += 1
                found[id(control.network), times[id(control.network)]].append((number, control))
    pairs = [tuple(zip(*places, strict=True)) for places in found.values()]
    return [Call(controls[0].network, numbers, controls) for numbers, controls in pairs]
