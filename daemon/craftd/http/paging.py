"""Pages of lists: so many entries or so many bytes, whichever comes first; a page may be shorter than was asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, TypeVar

from craft_protos.generate import GenerateSpec
from fastapi import Query, Response
from pydantic import BaseModel

from craftd.images.image import Image
from craftd.jobs.job import JobView

Entry = TypeVar("Entry")
PageSize = Annotated[int, Query(ge=1, le=100)]
PageToken = Annotated[str, Query(max_length=20)]
_MOST_BYTES = 512 << 10
_AT_ONCE = 16  # are read before their bytes are counted
_USUAL_BYTES = 512  # of an entry without its prompts


async def page_of(
    read: Callable[[int, str], Awaitable[Sequence[tuple[int, Entry]]]],
    size_of: Callable[[Entry], int],
    page_size: int,
    page_token: str,
) -> tuple[list[Entry], str]:
    """(entries, the token of the page after them, "" at the end). `read`: at most so many, after that token."""
    entries: list[Entry] = []
    token, room = page_token, _MOST_BYTES
    while (wanted := min(_AT_ONCE, page_size - len(entries))) > 0:
        found = await read(wanted, token)
        for place, entry in found:
            room -= size_of(entry)
            if entries and room < 0:
                return entries, token
            entries.append(entry)
            token = str(place)
        if len(found) < wanted:
            return entries, ""
    return entries, token


def bytes_of_image(image: Image) -> int:
    """About what it takes as JSON."""
    return _USUAL_BYTES + len(image.prompt)


def bytes_of_job(view: JobView) -> int:
    """About what it takes as JSON."""
    spec = view.job.spec
    prompts = len(spec.prompt) + len(spec.negative_prompt) if isinstance(spec, GenerateSpec) else 0
    return 2 * _USUAL_BYTES + prompts + sum(map(bytes_of_image, view.images))


async def written(page: Callable[[], BaseModel]) -> Response:
    """Made and put into JSON off the event loop."""
    data = await asyncio.to_thread(lambda: page().model_dump_json())
    return Response(data, media_type="application/json")
