"""A job's events as an event stream (HTML's text/event-stream), until its end or its reader's."""

from __future__ import annotations

import asyncio
import base64
from collections import Counter
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import AbstractContextManager, aclosing, contextmanager
from dataclasses import asdict

from craft_protos.reasons import CraftError
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from craftd.http import sse
from craftd.http.services import HttpServices
from craftd.http.views import ErrorView, ImageView, JobOut
from craftd.jobs.events import (
    Event,
    Finished,
    ImageMade,
    Loading,
    Preparing,
    Queued,
    SampleMade,
    Snapshot,
    Started,
    Step,
    Trained,
)
from craftd.jobs.job import JobView
from craftd.keys.caller import Caller

_MOST_OPEN = 32
_QUIET_S = 15.0  # then a comment goes out, so that nothing between takes the connection for dead
EVENT_STREAM: dict[str, object] = {
    "description": "The events.",
    "content": {sse.MEDIA_TYPE: {"schema": sse.SCHEMA}},
}


class EventStreams:
    """A key may have so many open: each holds a connection, of which there are only so many."""

    def __init__(self, services: HttpServices) -> None:
        self._services = services
        self._open: Counter[str] = Counter()

    def of(self, caller: Caller, job_id: str, preview_every: int) -> EventStream:
        """Raises RATE_LIMITED."""
        if self._open[caller.owner] >= _MOST_OPEN:
            message = f"this key has {_MOST_OPEN} event streams open, which is the most"
            raise CraftError("RATE_LIMITED", message, "close one of them", retry_after_s=_QUIET_S)
        blocks = _blocks(self._services, caller, job_id, preview_every)
        return EventStream(_with_comments(blocks), self._counted(caller.owner))

    @contextmanager
    def _counted(self, owner: str) -> Iterator[None]:
        self._open[owner] += 1
        try:
            yield
        finally:
            self._open[owner] -= 1
            if not self._open[owner]:
                del self._open[owner]


class EventStream(StreamingResponse):
    media_type = sse.MEDIA_TYPE

    def __init__(self, blocks: AsyncGenerator[bytes, None], being_open: AbstractContextManager[None]) -> None:
        super().__init__(blocks, headers=sse.HEADERS)
        self._blocks = blocks
        self._being_open = being_open

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """When the reader hangs up, nobody watches any more."""
        with self._being_open:
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
        case Preparing(what, done, of):
            return sse.event("preparing", {"what": what, "done": done, "of": of})
        case Trained(trained):
            return sse.event("training", asdict(trained))
        case ImageMade(image):
            return sse.event("image", ImageView.of(image).model_dump(mode="json"))
        case Finished(view):
            return sse.event("finished", _job(view))
        case SampleMade():
            return b""  # GetTrainingLog has it


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
