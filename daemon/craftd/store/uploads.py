"""How many senders are heard at once, and for how long one of them may say nothing."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeVar

from craft_protos.reasons import CraftError

T = TypeVar("T")

PATIENCE_S = 60.0
_MOST = 8  # at once; more wait
_MOST_OF_AN_OWNER = 2  # of them


class Uploads:
    """`noun`: what is sent, in an error."""

    def __init__(self, noun: str, patience_s: float = PATIENCE_S) -> None:
        self._noun = noun
        self._patience_s = patience_s
        self._room = asyncio.Semaphore(_MOST)
        self._rooms = defaultdict[str, asyncio.Semaphore](partial(asyncio.Semaphore, _MOST_OF_AN_OWNER))

    @asynccontextmanager
    async def room(self, owner: str) -> AsyncGenerator[None]:
        """Held while an owner sends something."""
        async with self._rooms[owner], self._room:
            yield

    async def next(self, parts: AsyncIterator[T], after: str = "") -> T | None:
        """None at the end. Raises CORRUPT_FILE where nothing comes: others wait for the room."""
        try:
            async with asyncio.timeout(self._patience_s):
                return await anext(parts, None)
        except TimeoutError:
            since = f" after {after}" if after else ""
            message = f"{self._noun}: nothing came for {self._patience_s:g} s{since}"
            raise CraftError("CORRUPT_FILE", message, "send them again") from None
