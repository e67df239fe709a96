"""A job's events as an event stream (HTML's text/event-stream), until its end or its reader's."""

from __future__ import annotations

import asyncio
import base64
from collections import Counter
from collections.abc import AsyncGenerator, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, aclosing, contextmanager, suppress
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
        return self._stream(caller, _blocks(self._services, caller, job_id, preview_every))

    def of_several(self, caller: Caller, job_ids: Sequence[str], preview_every: int) -> EventStream:
        """One stream of them all: each event says in `job` whose it is. Raises RATE_LIMITED."""
        streams = [_blocks(self._services, caller, one, preview_every, is_named=True) for one in dict.fromkeys(job_ids)]
        return self._stream(caller, _merged(streams))

    def _stream(self, caller: Caller, blocks: AsyncGenerator[bytes, None]) -> EventStream:
        if self._open[caller.owner] >= _MOST_OPEN:
            message = f"this key has {_MOST_OPEN} event streams open, which is the most"
            raise CraftError("RATE_LIMITED", message, "close one of them", retry_after_s=_QUIET_S)
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
    services: HttpServices, caller: Caller, job_id: str, preview_every: int, *, is_named: bool = False
) -> AsyncGenerator[bytes, None]:
    """A key that is suspended meanwhile sees no more of it. `is_named`: each says which job it is of."""
    name = {"job": job_id} if is_named else {}
    try:
        async with aclosing(services.jobs.watch(caller, job_id, preview_every)) as events:
            async for event in events:
                services.keys.check(caller)
                if (told := _told(event)) is not None:
                    yield sse.event(told[0], {**told[1], **name})
    except CraftError as exc:
        yield sse.event("problem", {**ErrorView.of(exc).model_dump(), **name})


def _told(event: Event) -> tuple[str, Mapping[str, object]] | None:  # noqa: PLR0911 - one for each kind
    """(the event's name, what it says); None where an event stream says nothing."""
    match event:
        case Snapshot(view):
            return "snapshot", _job(view)
        case Queued(position, why):
            return "queued", {"position": position, "why": why}
        case Loading(model, done, total):
            return "loading", {"model": model, "bytes_done": done, "bytes_total": total}
        case Started(attempt, device, notice):
            return "started", {"attempt": attempt, "device": device, "notice": notice}
        case Step(index, step, of, preview):
            small = base64.b64encode(preview).decode("ascii") or None
            return "step", {"index": index, "step": step, "of": of, "preview": small}
        case Preparing(what, done, of):
            return "preparing", {"what": what, "done": done, "of": of}
        case Trained(trained):
            return "training", asdict(trained)
        case ImageMade(image):
            return "image", ImageView.of(image).model_dump(mode="json")
        case Finished(view):
            return "finished", _job(view)
        case SampleMade():
            return None  # GetTrainingLog has it


def _job(view: JobView) -> Mapping[str, object]:
    return JobOut.of(view).model_dump(mode="json")


async def _merged(streams: Sequence[AsyncGenerator[bytes, None]]) -> AsyncGenerator[bytes, None]:
    """The blocks of all, as they come, until the last has ended."""
    coming = {asyncio.create_task(_next(one), name="await an event"): one for one in streams}
    try:
        while coming:
            done, _ = await asyncio.wait(coming, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                stream = coming.pop(task)
                if (block := task.result()) is not None:
                    coming[asyncio.create_task(_next(stream), name="await an event")] = stream
                    yield block
    finally:
        await _end(coming)
        for stream in streams:
            await stream.aclose()


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
                await _end([coming])


async def _end(tasks: Collection[asyncio.Task[bytes | None]]) -> None:
    """Cancel them and wait, however often the waiting is cancelled: a generator cannot be closed while it runs."""
    for task in tasks:
        task.cancel()
    while pending := [task for task in tasks if not task.done()]:
        with suppress(asyncio.CancelledError):
            await asyncio.wait(pending)


async def _next(blocks: AsyncGenerator[bytes, None]) -> bytes | None:
    """None at the end."""
    return await anext(blocks, None)
