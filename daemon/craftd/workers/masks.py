"""Has strangers' pictures made masks of craft's, or control maps, in a process that is ended however it behaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

from craft_protos.reasons import CraftError

from craftd.workers.inspector import end, spawn

_LIMIT_S = 60.0  # of wall-clock time
_MOST_BYTES = 256 << 20  # a picture of as many pixels as one may have is less

Meaning = Literal["transparent", "opaque-or-white"]  # what of the mask is drawn anew


async def converted(path: Path, meaning: Meaning) -> bytes:
    """A grey PNG whose white is drawn anew. Raises BAD_INPUT."""
    return await _made("--mask", meaning, path)


async def mapped(path: Path, kind: str) -> bytes:
    """What a control model would be shown of a picture, a PNG; `kind`: one of CONTROL_KINDS. Raises BAD_INPUT."""
    return await _made("--control", kind, path)


async def _made(option: str, what: str, path: Path) -> bytes:
    process = await spawn([option, what, str(path)])
    assert process.stdout is not None
    try:
        async with asyncio.timeout(_LIMIT_S):
            made = b"".join([chunk async for chunk in _chunks(process.stdout)])
            code = await process.wait()
    except TimeoutError:
        made, code = b"", -1
    finally:
        await end(process)
    if code != 0 or not made:
        why = "cannot be decoded within the limits of time and memory"
        raise CraftError("BAD_INPUT", f"picture: {why}", "send a smaller one", field="picture")
    return made


async def _chunks(stream: asyncio.StreamReader) -> AsyncIterator[bytes]:
    left = _MOST_BYTES
    while left > 0 and (chunk := await stream.read(1 << 20)):
        left -= len(chunk)
        yield chunk
