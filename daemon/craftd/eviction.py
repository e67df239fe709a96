"""Which models leave a device's memory to make room for another: the worker's rule, and how a plan foretells it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

_USABLE = 0.8  # of the device's memory, for weights


@dataclass(frozen=True)
class Resident:
    """A model in a device's memory. `shared`: parts that others may hold too, and the bytes of each among its own."""

    key: tuple[str, str]  # name and manifest's sha256
    resident_bytes: int
    last_used: float
    is_idle: bool
    shared: Mapping[str, int] = field(default_factory=dict)


def to_evict(
    residents: Sequence[Resident], need_bytes: int, budget_bytes: int, shared: Mapping[str, int] | None = None
) -> list[Resident] | None:
    """The least recently used idle models whose going makes room; None where they do not suffice.

    `shared`: parts among what is needed, which those who hold them already have brought.
    """
    newcomer = Resident(("", ""), need_bytes, 0.0, is_idle=False, shared=shared or {})
    staying, chosen = [*residents, newcomer], list[Resident]()
    for resident in sorted((r for r in residents if r.is_idle), key=lambda r: r.last_used):
        if held_bytes(staying) <= budget_bytes:
            break
        chosen.append(resident)
        staying.remove(resident)
    return chosen if held_bytes(staying) <= budget_bytes else None


def held_bytes(residents: Iterable[Resident]) -> int:
    """What they hold together: what they share counts once."""
    told = list(residents)
    shared = {key: count for one in told for key, count in one.shared.items()}
    own = sum(max(0, one.resident_bytes - sum(one.shared.values())) for one in told)
    return own + sum(shared.values())


def foretell(residents: Sequence[Resident], need_bytes: int, budget_bytes: int) -> tuple[str, ...]:
    """Names of those that will leave; where idle ones don't suffice, busy ones too, once they are done."""
    leaving = to_evict(residents, need_bytes, budget_bytes)
    if leaving is None:
        in_the_end = sorted((replace(one, is_idle=True) for one in residents), key=lambda one: one.last_used)
        leaving = to_evict(in_the_end, need_bytes, budget_bytes) or in_the_end
    return tuple(one.key[0] for one in leaving)


def budget_bytes(device_bytes: int) -> int:
    """What models may hold of a device's memory."""
    return int(device_bytes * _USABLE)
