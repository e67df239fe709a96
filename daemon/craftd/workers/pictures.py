"""Has strangers' pictures decoded, in processes that are ended however they behave."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from craftd.workers.inspector import end, spawn

_AT_ONCE = 16  # pictures a process
_LIMIT_S = 30.0  # of wall-clock time for one of them


@dataclass(frozen=True)
class PictureFindings:
    """What a picture is; `why` it cannot be used, or "" and its size upright."""

    why: str = ""
    width: int = 0
    height: int = 0
    pixels: str = ""  # equal for equal pixels, where that was asked
    media_type: str = ""
    has_alpha: bool = False


InspectPictures = Callable[[Sequence[Path]], AsyncIterator[PictureFindings]]


async def compare_pictures(paths: Sequence[Path]) -> AsyncIterator[PictureFindings]:
    """As `inspect_pictures`; those with equal pixels say so."""
    async for found in inspect_pictures(paths, "--compared"):
        yield found


async def inspect_pictures(paths: Sequence[Path], *options: str) -> AsyncIterator[PictureFindings]:
    """One for each, in order. A picture that ends its process is found bad, and the rest get another."""
    left = list(paths)
    while left:
        some = left[:_AT_ONCE]
        done = 0
        async for found in _decoded(some, options):
            done += 1
            yield found
        if done < len(some):
            done += 1
            yield PictureFindings(why="cannot be decoded within the limits of time and memory")
        left = left[done:]


async def _decoded(paths: Sequence[Path], options: Sequence[str]) -> AsyncIterator[PictureFindings]:
    """Up to the first that gives no answer."""
    process = await spawn(["--pictures", *options, *map(str, paths)])
    assert process.stdout is not None
    try:
        for _ in paths:
            async with asyncio.timeout(_LIMIT_S):
                line = await process.stdout.readline()
            if not line:
                return
            yield _parsed(line)
    except (TimeoutError, ValueError, KeyError, TypeError):  # too slow, or no answer of ours
        return
    finally:
        await end(process)


def _parsed(line: bytes) -> PictureFindings:
    told = json.loads(line)
    if why := told.get("why"):
        return PictureFindings(why=str(why)[:200])
    return PictureFindings(
        width=int(told["width"]),
        height=int(told["height"]),
        pixels=str(told["pixels"]),
        media_type=str(told["media_type"]),
        has_alpha=bool(told["has_alpha"]),
    )
