"""Requests per minute, for each key."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from craft_protos.reasons import CraftError

if TYPE_CHECKING:
    from limits import RateLimitItem
    from limits.aio.strategies import RateLimiter

_LEAST_WAIT_S = 0.1


@dataclass(frozen=True)
class Rate:
    """How a key stands after a request. `limit` 0: nobody counts."""

    limit: int = 0  # a minute
    remaining: int = 0
    reset_s: float = 0.0  # until there is more
    is_exceeded: bool = False

    def require_within(self) -> None:
        """Raises RATE_LIMITED."""
        if self.is_exceeded:
            message = f"this key may send {self.limit} requests a minute"
            raise CraftError("RATE_LIMITED", message, "send fewer", retry_after_s=max(_LEAST_WAIT_S, self.reset_s))


class Rates:
    def __init__(self) -> None:
        from limits.aio.storage import MemoryStorage  # dear, and only callers from afar are counted
        from limits.aio.strategies import SlidingWindowCounterRateLimiter

        self._limiter: RateLimiter = SlidingWindowCounterRateLimiter(MemoryStorage())

    async def hit(self, key_id: str, per_minute: int) -> Rate:
        """How the key stands with one request more."""
        item = _item(per_minute)
        is_within = await self._limiter.hit(item, key_id)
        return replace(await self.look(key_id, per_minute), is_exceeded=not is_within)

    async def look(self, key_id: str, per_minute: int) -> Rate:
        """How the key stands."""
        stats = await self._limiter.get_window_stats(_item(per_minute), key_id)
        return Rate(per_minute, max(0, stats.remaining), max(0.0, stats.reset_time - time.time()))


def _item(per_minute: int) -> RateLimitItem:
    from limits import RateLimitItemPerMinute

    return RateLimitItemPerMinute(per_minute)
