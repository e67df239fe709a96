"""Offload: how much of a model is on its device at once, where not all of it fits.

The rungs, each with less on the device and more on its way there:

    none      everything stays there
    encoders  text encoders and autoencoder come one at a time; what denoises stays
    model     one network is there at a time
    blocks    of a network's repeated blocks the one that computes and the next are there; the weights travel each step

The worker's choice, and how a plan foretells it. What comes to a device is a copy: the weights stay in the host's
memory, which must hold all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from craft_protos.rungs import BLOCKS, ENCODERS, MODEL, NONE, RUNGS

from craftd.weights import Weights

_DENOISERS = ("transformer", "unet", "model.diffusion_model", "diffusion_model")
_AT_ONCE = 2  # blocks: one computes while the next one comes


@dataclass(frozen=True)
class Need:
    """What a model will hold of a device, told before it is loaded."""

    rung: str
    peak_bytes: int
    device_bytes: int


@dataclass(frozen=True)
class NetworkSize:
    """Of one network of a pipeline, in bytes as it is kept in memory."""

    total: int
    largest_block: int  # of those that are repeated; 0 where there are none
    outside: int  # of its blocks

    @property
    def by_blocks(self) -> int:
        return self.outside + _AT_ONCE * self.largest_block


Sizes = Mapping[str, NetworkSize]  # by component


def sizes_of(blocks: Mapping[tuple[str, str], Weights], computed: str, kept_in: str) -> dict[str, NetworkSize]:
    """Of a model's (network, block) as its files' headers have them; "" is what lies outside of blocks."""
    held: dict[str, dict[str, int]] = {}
    for (network, block), weights in blocks.items():
        held.setdefault(network, {})[block] = weights.resident_bytes(computed, kept_in)
    return {name: _size(some) for name, some in held.items()}


def _size(blocks: Mapping[str, int]) -> NetworkSize:
    repeated = [count for block, count in blocks.items() if block]
    return NetworkSize(sum(blocks.values()), max(repeated, default=0), blocks.get("", 0))


def denoiser_of(sizes: Sizes) -> str:
    """The network that is called at each step, by its name; "" where none is called so."""
    return next((name for name in sizes if name in _DENOISERS), "")


def peak(rung: str, sizes: Sizes, denoiser: str) -> int:
    """The most bytes of weights that are on the device at once."""
    totals = {name: size.total for name, size in sizes.items()}
    if rung == NONE:
        return sum(totals.values())
    if rung == ENCODERS:
        others = [total for name, total in totals.items() if name != denoiser]
        return totals.get(denoiser, 0) + max(others, default=0)
    if rung == MODEL:
        return max(totals.values(), default=0)
    return max((size.by_blocks for size in sizes.values()), default=0)


def choose(sizes: Sizes, denoiser: str, budget_bytes: int) -> str:
    """The first rung that fits; the last one where none does."""
    fitting = (rung for rung in RUNGS if peak(rung, sizes, denoiser) <= budget_bytes)
    return next(fitting, BLOCKS)


def next_after(rung: str) -> str | None:
    """The rung with less on the device; None after the last."""
    place = RUNGS.index(rung) + 1
    return RUNGS[place] if place < len(RUNGS) else None
