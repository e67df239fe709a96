"""One call, one picture: a job is made, watched to its end, and cancelled when its caller hangs up.

Idempotency-Key: KEY                   the same call again is the same job
Craft-On-Disconnect: cancel|continue   what becomes of the job when the caller goes away; cancel
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import secrets
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from craft_protos.reasons import REASONS, CraftError, invalid

from craftd.jobs.events import Event, Finished
from craftd.jobs.job import GenerateRequest, JobRequest, JobView, State
from craftd.jobs.service import JobService
from craftd.keys.caller import Caller

if TYPE_CHECKING:
    from starlette.requests import Request

_log = logging.getLogger("craft.http")
_LONGEST_KEY = 255
KEEP, CANCEL = "continue", "cancel"
# What may become of a picture that is asked for, for the documentation.
DRAWING = (
    *("UNKNOWN_MODEL", "UNKNOWN_LORA", "INVALID_FIELD", "REQUEST_ID_CLASH", "QUEUE_FULL", "RATE_LIMITED", "DRAINING"),
    *("CANCELLED", "JOB_FAILED", "OUT_OF_MEMORY", "DISK_FULL", "EXPIRED"),
)


@dataclass(frozen=True)
class Wish:
    """What the headers of a drawing call ask for."""

    request_id: str
    is_new: bool  # nobody can have used the id before
    survives: bool  # its caller's going away


def wish_of(idempotency_key: str | None, on_disconnect: str | None) -> Wish:
    """Raises INVALID_FIELD."""
    if on_disconnect not in (None, KEEP, CANCEL):
        raise invalid("Craft-On-Disconnect", f"must be {CANCEL} or {KEEP}")
    return Wish(_request_id(idempotency_key), idempotency_key is None, on_disconnect == KEEP)


@dataclass(frozen=True)
class Order:
    """A picture that a caller waits for on a connection."""

    request: Request
    caller: Caller
    wish: Wish
    generate: GenerateRequest
    public: bool = False
    preview_every: int = 0


class Drawing:
    """Counts who waits for a job: it is cancelled when the last of them has gone."""

    def __init__(self, jobs: JobService) -> None:
        self._jobs = jobs
        self._waiting: Counter[str] = Counter()
        self._cancelling: set[asyncio.Task[None]] = set()

    async def draw(self, order: Order) -> JobView:
        """The job, once it has succeeded. Raises what ended it otherwise."""
        async with aclosing(self.follow(order)) as events:
            async for event in events:
                if isinstance(event, Finished):
                    return event.view
        raise AssertionError("a job's events end with its end")

    async def follow(self, order: Order) -> AsyncGenerator[Event, None]:
        """The job's events until it has succeeded. Raises what ended it otherwise; closing it is hanging up."""
        if order.wish.is_new:
            self._jobs.check_room(order.caller)  # refused at once: not even the database is asked
        asked = JobRequest(order.wish.request_id, order.generate, lease=not order.wish.survives, public=order.public)
        job_id = (await self._jobs.create(order.caller, asked)).job.id
        self._waiting[job_id] += 1
        presence = asyncio.create_task(self._await_absence(order, job_id), name="await a caller's absence")
        has_ended = False
        try:
            async with aclosing(self._jobs.watch(order.caller, job_id, order.preview_every)) as events:
                async for event in events:
                    if isinstance(event, Finished):
                        has_ended = True
                        check(event.view)
                    yield event
        finally:
            presence.cancel()
            self._waiting[job_id] -= 1
            if not self._waiting[job_id]:
                del self._waiting[job_id]
                if not has_ended:
                    self._abandon(order, job_id)

    async def _await_absence(self, order: Order, job_id: str) -> None:
        """The body has been read: what comes next is the connection's end."""
        while (await order.request.receive())["type"] != "http.disconnect":
            continue
        if self._waiting[job_id] == 1:
            self._abandon(order, job_id)

    def _abandon(self, order: Order, job_id: str) -> None:
        """Nobody waits for it any more."""
        if not order.wish.survives:
            task = asyncio.create_task(self._cancel(order.caller, job_id), name="cancel an abandoned job")
            self._cancelling.add(task)
            task.add_done_callback(self._cancelling.discard)

    async def _cancel(self, caller: Caller, job_id: str) -> None:
        with contextlib.suppress(CraftError):  # it has ended meanwhile
            await self._jobs.cancel(caller, job_id)
            _log.info("the caller hung up", extra={"job": job_id})


def check(view: JobView) -> None:
    """Raises what ended the job, unless it has succeeded."""
    job, error = view.job, view.job.error
    if job.state is State.SUCCEEDED:
        return
    if error is None:
        raise CraftError("JOB_FAILED", f"job {job.id} ended as {job.state.value.lower()}")
    raise CraftError(error.reason if error.reason in REASONS else "JOB_FAILED", error.message, error.hint)


def request_id_of_key(idempotency_key: str) -> str:
    """Any text makes one. Raises INVALID_FIELD."""
    if not 0 < len(idempotency_key) <= _LONGEST_KEY or not idempotency_key.isprintable():
        raise invalid("Idempotency-Key", f"must be 1 to {_LONGEST_KEY} printable characters")
    return f"idem-{hashlib.sha256(idempotency_key.encode('utf-8', 'replace')).hexdigest()[:48]}"


def _request_id(idempotency_key: str | None) -> str:
    return f"http-{secrets.token_hex(16)}" if idempotency_key is None else request_id_of_key(idempotency_key)
