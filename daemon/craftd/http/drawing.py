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
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from craft_protos.generate import GenerateRequest
from craft_protos.job_request import JobRequest
from craft_protos.reasons import REASONS, CraftError, invalid

from craftd.jobs.events import Event, Finished
from craftd.jobs.job import Job, JobView, State
from craftd.jobs.service import JobService
from craftd.keys.caller import Caller

if TYPE_CHECKING:
    from starlette.requests import Request

_log = logging.getLogger("craft.http")
_LONGEST_KEY = 255
_MOST_ATTEMPTS = 100  # of one Idempotency-Key, all but the last hung up on
KEEP, CANCEL = "continue", "cancel"
# What may become of a picture that is asked for, for the documentation.
DRAWING = (
    *("UNKNOWN_MODEL", "UNKNOWN_LORA", "INVALID_FIELD", "REQUEST_ID_CLASH", "QUEUE_FULL", "RATE_LIMITED", "DRAINING"),
    *("UNKNOWN_IMAGE", "CANCELLED", "JOB_FAILED", "OUT_OF_MEMORY", "DISK_FULL", "EXPIRED"),
)


_BOTH_SIDES = ("size", "image_size")  # fields that say width and height
OF_THE_HEADER = {"request_id": "Idempotency-Key"}  # what the services call it -> what the caller sent


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
    names: Mapping[str, str] = field(default_factory=dict)  # the service's of fields -> the request's


@dataclass(eq=False)
class _Wait:
    """One caller's, for a job's end."""

    order: Order
    job_id: str
    is_over: bool = False  # the job has ended, or the daemon stops: nobody has given it up


class Drawing:
    """Knows who waits for a job: it is cancelled when the last of them has gone."""

    def __init__(self, jobs: JobService) -> None:
        self._jobs = jobs
        self._waiting: dict[str, set[_Wait]] = {}
        self._abandoned: dict[str, asyncio.Task[None]] = {}  # being cancelled

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
        wait = _Wait(order, await self._job_of(order))
        self._waiting.setdefault(wait.job_id, set()).add(wait)
        presence = asyncio.create_task(self._await_absence(wait), name="await a caller's absence")
        try:
            async with aclosing(self._jobs.watch(order.caller, wait.job_id, order.preview_every)) as events:
                async for event in events:
                    if isinstance(event, Finished):
                        wait.is_over = True
                        check(event.view)
                    yield event
        except CraftError as exc:
            wait.is_over = wait.is_over or exc.reason == "DRAINING"  # the next daemon goes on with it
            raise
        finally:
            presence.cancel()
            self._leave(wait)

    async def _job_of(self, order: Order) -> str:
        """Its id. One that was cancelled, since all who waited had hung up, is not what a repeated call asks for."""
        job = await self._create(order, order.wish.request_id)
        for attempt in range(2, _MOST_ATTEMPTS + 1):
            if job.state is not State.CANCELLED and job.id not in self._abandoned:
                break
            job = await self._create(order, f"{order.wish.request_id}-{attempt}")
        return job.id

    async def _create(self, order: Order, request_id: str) -> Job:
        asked = JobRequest(request_id, order.generate, lease=not order.wish.survives, public=order.public)
        with said_as({**OF_THE_HEADER, **order.names}):
            return (await self._jobs.create(order.caller, asked)).job

    async def _await_absence(self, wait: _Wait) -> None:
        """The body has been read: what comes next is the connection's end."""
        while (await wait.order.request.receive())["type"] != "http.disconnect":
            continue
        self._leave(wait)

    def _leave(self, wait: _Wait) -> None:
        """Of the ways to go, the first counts."""
        others = self._waiting.get(wait.job_id, set())
        if wait not in others:
            return
        others.remove(wait)
        if others:
            return
        del self._waiting[wait.job_id]
        if not (wait.is_over or wait.order.wish.survives):
            self._abandon(wait)

    def _abandon(self, wait: _Wait) -> None:
        """Nobody waits for it any more."""
        task = asyncio.create_task(self._cancel(wait), name="cancel an abandoned job")
        self._abandoned[wait.job_id] = task
        task.add_done_callback(lambda _: self._abandoned.pop(wait.job_id))

    async def _cancel(self, wait: _Wait) -> None:
        with contextlib.suppress(CraftError):  # it has ended meanwhile
            await self._jobs.cancel(wait.order.caller, wait.job_id)
            _log.info("the caller hung up", extra={"job": wait.job_id})


@contextmanager
def said_as(names: Mapping[str, str]) -> Iterator[None]:
    """What a service says of its fields is said of the request's."""
    try:
        yield
    except CraftError as exc:
        if exc.field not in names:
            raise
        own, message = names[exc.field], exc.message.removeprefix(f"{exc.field}: ")
        if own in _BOTH_SIDES:
            message = f"the {exc.field} {message}"
        raise CraftError(exc.reason, f"{own}: {message}", exc.hint, field=own, retry_after_s=exc.retry_after_s) from exc


def check(view: JobView) -> None:
    """Raises what ended the job, unless it has succeeded."""
    job, error = view.job, view.job.error
    if job.state is State.SUCCEEDED:
        if len(view.images) < len(job.spec.wanted):
            raise CraftError(
                "UNKNOWN_IMAGE", f"job {job.id}: a picture of it was deleted", "call with another Idempotency-Key"
            )
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
