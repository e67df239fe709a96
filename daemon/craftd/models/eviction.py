"""Which models a worker will unload to make room for another: its own policy, foretold for plans."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

USABLE = 0.8  # of the device's memory, for weights
_ITEM_BYTES = {"fp64": 8, "fp32": 4, "fp16": 2, "bf16": 2}


@dataclass(frozen=True)
class Held:
    """A model in the device's memory."""

    name: str
    resident_bytes: int
    last_used: float
    is_idle: bool


def foretell(held: Iterable[Held], need_bytes: int, device_bytes: int) -> tuple[str, ...]:
    """The least recently used idle models that make room; where those don't suffice, busy ones once they are done."""
    models = sorted(held, key=lambda one: one.last_used)
    budget_bytes = int(device_bytes * USABLE)
    idle = [one for one in models if one.is_idle]
    chosen = _until_it_fits(idle, models, need_bytes, budget_bytes)
    if chosen is None:
        chosen = _until_it_fits(models, models, need_bytes, budget_bytes)
    return tuple(one.name for one in (models if chosen is None else chosen))


def weights_bytes(size_bytes: int, stored: str, computed: str) -> int:
    """What weights of that size on disk take in memory; "" is a precision that isn't known."""
    if stored not in _ITEM_BYTES or computed not in _ITEM_BYTES:
        return size_bytes
    return size_bytes * _ITEM_BYTES[computed] // _ITEM_BYTES[stored]


def _until_it_fits(may_go: list[Held], models: list[Held], need_bytes: int, budget_bytes: int) -> list[Held] | None:
    over = sum(one.resident_bytes for one in models) + need_bytes - budget_bytes
    chosen: list[Held] = []
    for one in may_go:
        if over <= 0:
            break
        chosen.append(one)
        over -= one.resident_bytes
    return chosen if over <= 0 else None
