"""A job's events as an event stream (HTML's text/event-stream), until its end or its reader's."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing

from craft_protos.reasons import CraftError
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from craftd.http import sse
from craftd.http.services import HttpServices
from craftd.http.views import ErrorView, ImageView, JobOut
from craftd.jobs.events import Event, Finished, ImageMade, Loading, Queued, Snapshot, Started, Step
from craftd.jobs.job import JobView
from craftd.keys.caller import Caller

_QUIET_S = 15.0  # then a comment goes out, so that nothing between takes the connection for dead
EVENT_STREAM: dict[str, object] = {
    "description": "The events.",
    "content": {sse.MEDIA_TYPE: {"schema": {"type": "string"}}},
}


class EventStream(StreamingResponse):
    media_type = sse.MEDIA_TYPE

    def __init__(self, services: HttpServices, caller: Caller, job_id: str, preview_every: int) -> None:
        self._blocks = _with_comments(_blocks(services, caller, job_id, preview_every))
        super().__init__(self._blocks, headers=sse.HEADERS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """When the reader hangs up, nobody watches any more."""
        async with aclosing(self._blocks):
            await super().__call__(scope, receive, send)


async def _blocks(
    services: HttpServices, caller: Caller, job_id: str, preview_every: int
) -> AsyncGenerator[bytes, None]:
    """A key that is suspended meanwhile sees no more of it."""
    try:
        async with aclosing(services.jobs.watch(caller, job_id, preview_every)) as events:
            async for event in events:
                services.keys.check(caller)
                if block := _block(event):
                    yield block
    except CraftError as exc:
        yield sse.event("problem", ErrorView.of(exc).model_dump())


def _block(event: Event) -> bytes:  # noqa: PLR0911 - one for each kind
    match event:
        case Snapshot(view):
            return sse.event("snapshot", _job(view))
        case Queued(position, why):
            return sse.event("queued", {"position": position, "why": why})
        case Loading(model, done, total):
            return sse.event("loading", {"model": model, "bytes_done": done, "bytes_total": total})
        case Started(attempt, device, notice):
            return sse.event("started", {"attempt": attempt, "device": device, "notice": notice})
        case Step(index, step, of, preview):
            small = base64.b64encode(preview).decode("ascii") or None
            return sse.event("step", {"index": index, "step": step, "of": of, "preview": small})
        case ImageMade(image):
            return sse.event("image", ImageView.of(image).model_dump(mode="json"))
        case Finished(view):
            return sse.event("finished", _job(view))
        case _:
            return b""


def _job(view: JobView) -> Mapping[str, object]:
    return JobOut.of(view).model_dump(mode="json")


async def _with_comments(blocks: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """The blocks, and a comment where nothing is said for long."""
    coming: asyncio.Task[bytes | None] | None = None
    async with aclosing(blocks):
        try:
            while True:
                coming = coming or asyncio.create_task(_next(blocks), name="await an event")
                await asyncio.wait({coming}, timeout=_QUIET_S)
                if not coming.done():
                    yield b": still here\n\n"
                    continue
                block, coming = coming.result(), None
                if block is None:
                    return
                yield block
        finally:
            if coming is not None:
                coming.cancel()
                await asyncio.wait({coming})


async def _next(blocks: AsyncGenerator[bytes, None]) -> bytes | None:
    """None at the end."""
    return await anext(blocks, None)
