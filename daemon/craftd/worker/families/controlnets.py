"""ControlNets beside a UNet (Zhang et al. 2023): what they read off pictures is added to what the UNet skips over.

A control model is called once for all rows that have a picture for it, and for no others; rows without get noughts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from craftd.worker.families.controls import RowControl
from craftd.worker.families.guidance import Stacked

Added = Mapping[str, torch.Tensor] | None


@dataclass(frozen=True)
class _Place:
    """A model row of the batch, and the picture that it has for a control model."""

    row: int
    control: RowControl


def residuals(batch: Stacked, added: Added) -> dict[str, Any]:
    """What the UNet is told beside its usual inputs: nothing where no row is controlled now."""
    samples, timesteps = batch.samples, batch.timesteps
    total: list[torch.Tensor] = []
    for places in _places(batch).values():
        read = _read(places, batch, samples, timesteps, added)
        total = [before + more for before, more in zip(total, read, strict=True)] if total else read
    if not total:
        return {}
    return {"down_block_additional_residuals": tuple(total[:-1]), "mid_block_additional_residual": total[-1]}


def _places(batch: Stacked) -> dict[int, list[_Place]]:
    """By control model; one that reads a picture as a whole is not shown the rows without text, as diffusers has it."""
    found: dict[int, list[_Place]] = defaultdict(list)
    for number, row in enumerate(batch.order):
        for control in row.controls:
            if number >= len(batch.guided) or not control.network.config.global_pool_conditions:
                found[id(control.network)].append(_Place(number, control))
    return found


def _read(
    places: Sequence[_Place], batch: Stacked, samples: torch.Tensor, timesteps: torch.Tensor, added: Added
) -> list[torch.Tensor]:
    """What one control model adds to each skip, and to the middle: of all rows, noughts for those that are not its."""
    network, rows = places[0].control.network, torch.tensor([place.row for place in places], device=samples.device)
    dtype = network.dtype
    scales = torch.tensor([place.control.scale for place in places], dtype=dtype, device=samples.device)
    down, middle = network(
        samples[rows].to(dtype),
        timesteps[rows],
        encoder_hidden_states=batch.texts[rows].to(dtype),
        controlnet_cond=torch.cat([place.control.picture for place in places]),
        conditioning_scale=scales.view(-1, 1, 1, 1),
        added_cond_kwargs=None if added is None else {name: one[rows].to(dtype) for name, one in added.items()},
        return_dict=False,
    )
    return [_among(one.to(samples.dtype), rows, len(samples)) for one in (*down, middle)]


def _among(some: torch.Tensor, rows: torch.Tensor, count: int) -> torch.Tensor:
    return some.new_zeros((count, *some.shape[1:])).index_add_(0, rows, some)
