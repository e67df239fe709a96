"""Whoever shows wrong keys again and again must wait. Bounded memory, however many addresses try."""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable

_WINDOW_S = 60.0
_MOST_PEERS = 4096
_HOME_BITS = 64  # what one IPv6 subscriber has


class Failures:
    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = per_minute
        self._clock = clock
        self._windows: OrderedDict[str, tuple[float, int]] = OrderedDict()  # (since, how many), latest last

    def note(self, peer: str) -> float:
        """Seconds that it must wait before it is told what is wrong with its key; 0: it is told."""
        now, place = self._clock(), place_of(peer)
        since, count = self._windows.pop(place, (now, 0))
        if now - since >= _WINDOW_S:
            since, count = now, 0
        self._windows[place] = (since, count + 1)
        if len(self._windows) > _MOST_PEERS:
            self._windows.popitem(last=False)
        return since + _WINDOW_S - now if count >= self._limit else 0.0


def place_of(peer: str) -> str:
    """Where an address belongs to: itself, or the network that one IPv6 subscriber has."""
    try:
        address = ipaddress.ip_address(peer.partition("%")[0])
    except ValueError:
        return peer
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, _HOME_BITS), strict=False))
    return str(address)
