"""Requests per minute, for each key."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from limits import RateLimitItem
    from limits.aio.strategies import RateLimiter


@dataclass(frozen=True)
class Rate:
    """How a key stands after a request. `limit` 0: nobody counts."""

    limit: int = 0  # a minute
    remaining: int = 0
    reset_s: float = 0.0  # until there is more


class Rates:
    def __init__(self) -> None:
        from limits.aio.storage import MemoryStorage  # dear, and only callers from afar are counted
        from limits.aio.strategies import SlidingWindowCounterRateLimiter

        self._limiter: RateLimiter = SlidingWindowCounterRateLimiter(MemoryStorage())

    async def hit(self, key_id: str, per_minute: int) -> tuple[bool, Rate]:
        """(whether it is within the limit, how the key stands now)."""
        item = _item(per_minute)
        is_within = await self._limiter.hit(item, key_id)
        stats = await self._limiter.get_window_stats(item, key_id)
        return is_within, Rate(per_minute, max(0, stats.remaining), max(0.0, stats.reset_time - time.time()))


def _item(per_minute: int) -> RateLimitItem:
    from limits import RateLimitItemPerMinute

    return RateLimitItemPerMinute(per_minute)
