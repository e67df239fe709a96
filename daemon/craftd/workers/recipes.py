"""Has strangers' pictures read for how they were made, in a process that is ended however it behaves."""

from __future__ import annotations

import asyncio

from craft_protos.codec import from_json
from craft_protos.reasons import CraftError
from craft_protos.recipes.recipe import Recipe

from craftd.workers.inspector import asked

_LIMIT_S = 30.0  # of wall-clock time
_AT_ONCE = asyncio.Semaphore(2)


async def recipe_of(data: bytes) -> Recipe | None:
    """None where a picture says nothing that is understood. Raises CORRUPT_FILE."""
    async with _AT_ONCE:
        (answer,) = await asked("the picture", ["--recipe"], _LIMIT_S, given=data)
    if not isinstance(told := answer.get("recipe"), dict):
        return None
    try:
        return from_json(Recipe, told)
    except (CraftError, TypeError, ValueError) as exc:
        raise CraftError("CORRUPT_FILE", "the picture's words cannot be read", "take another picture") from exc
