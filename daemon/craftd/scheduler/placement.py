"""Which worker a job goes to: where it is done soonest. Pure policy over numbers; nothing here is asked or awaited.

The delay that is weighed is what the job would wait there: for the process to start, for the model and its LoRAs to be
loaded, for the pictures that are drawn there already. So a job goes where its model and LoRAs lie, until so much waits
there that loading them elsewhere is quicker; and a model that is asked for much spreads over the workers.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

_LORA_S = 0.3  # to bring one into slots
_EVICTION_S = 10.0  # another model goes for it, and somebody wants it back perhaps
_TRAINING_S = 30.0  # a training is held up: drawing goes round it


@dataclass(frozen=True)
class Place:
    """A worker, as a job sees it."""

    starts_in_s: float  # 0: it is ready
    has_model: bool
    lacking_loras: int
    rows: int  # images that it still has to draw
    is_training: bool
    evicts: bool  # to load the model, another one would have to go
    last_used: float  # monotonic; of several that are as good, the one that has rested longest


@dataclass(frozen=True)
class Times:
    """What a model takes here. Seconds."""

    load_s: float
    image_s: float


@dataclass(frozen=True)
class Choice:
    """`index` of the place, and why it was chosen, for users."""

    index: int
    why: str


def choose(places: Sequence[Place], times: Times) -> Choice:
    """Of places that are none too few: the one with the shortest delay."""
    index = min(range(len(places)), key=lambda one: (delay_s(places[one], times), places[one].last_used))
    return Choice(index, _why(places, index, times))


def spread(places: Sequence[Place], times: Times, images: int) -> list[int]:
    """How many images of one job go to each place, so that the last of them is done soonest."""
    delays = [(delay_s(place, times), place.last_used, index) for index, place in enumerate(places)]
    heapq.heapify(delays)
    counts = [0] * len(places)
    for _ in range(images):
        until_s, last_used, index = delays[0]
        counts[index] += 1
        heapq.heapreplace(delays, (until_s + times.image_s, last_used, index))
    return counts


def delay_s(place: Place, times: Times) -> float:
    """What a job would wait for there."""
    missing_s = 0.0 if place.has_model else times.load_s + _EVICTION_S * place.evicts
    busy_s = place.rows * times.image_s + _TRAINING_S * place.is_training
    return place.starts_in_s + missing_s + place.lacking_loras * _LORA_S + busy_s


def _why(places: Sequence[Place], index: int, times: Times) -> str:
    chosen = places[index]
    if chosen.has_model:
        return "its model is there" if chosen.lacking_loras else "all that it needs is there"
    holding = [place for place in places if place.has_model]
    if holding:
        busy_s = min(delay_s(place, times) for place in holding)
        return f"where its model is, it would wait {busy_s:.0f} s: loading it anew is quicker"
    return "its model is nowhere, and another goes for it here" if chosen.evicts else "its model is nowhere yet"
