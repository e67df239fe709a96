"""One call of a tool, and a call that draws: its job made, told of as it goes on, and cancelled with the call."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass

import anyio
from craft_protos.generate import GenerateRequest
from craft_protos.job_request import JobRequest
from craft_protos.reasons import CraftError
from starlette.requests import Request

from craftd.http.drawing import check, said_as
from craftd.http.services import HttpServices
from craftd.jobs.events import Event, Finished, Loading, Queued, Snapshot, Started, Step
from craftd.jobs.job import JobView
from craftd.keys.caller import Caller

Tell = Callable[[float, float | None, str | None], Awaitable[None]]  # done, of, what

_A_WORD = 0.001  # of a step: what is told before the first one is progress too, as the protocol wants it


@dataclass(frozen=True)
class Call:
    services: HttpServices
    caller: Caller
    request: Request
    tell: Tell

    async def draw(self, generate: GenerateRequest, names: Mapping[str, str]) -> JobView:
        """The job, once it has succeeded. Raises what ended it otherwise. `names`: the service's -> the tool's."""
        jobs = self.services.jobs
        jobs.check_room(self.caller)
        job_id = ""
        with anyio.CancelScope(shield=True), said_as(names):  # or nobody would know which job to cancel
            job_id = (await jobs.create(self.caller, asked_for(generate, lease=True))).job.id
        try:
            return await self._followed(job_id)
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True), contextlib.suppress(CraftError):  # it has ended meanwhile
                await jobs.cancel(self.caller, job_id)
            raise

    async def _followed(self, job_id: str) -> JobView:
        """A key that is suspended meanwhile sees no more of it."""
        progress = _Progress(self.tell)
        async with aclosing(self.services.jobs.watch(self.caller, job_id, 0)) as events:
            async for event in events:
                self.services.keys.check(self.caller)
                await progress.note(event)
                if isinstance(event, Finished):
                    check(event.view)
                    return event.view
        raise AssertionError("a job's events end with its end")


def asked_for(generate: GenerateRequest, *, lease: bool = False) -> JobRequest:
    """As a job that nobody has asked for before."""
    return JobRequest(f"mcp-{secrets.token_hex(16)}", generate, lease=lease)


class _Progress:
    """Counts a job's steps over all its images."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._count = 1
        self._steps: dict[int, int] = {}
        self._told = 0.0

    async def note(self, event: Event) -> None:
        match event:
            case Snapshot(view):
                self._count = len(view.job.spec.wanted)
            case Step(index, step, of, _):
                self._steps[index] = step
                done = sum(self._steps.values())
                await self._say(done, of * self._count, f"step {done} of {of * self._count}")
            case Loading(model, _, _):
                await self._say(0, None, f"loading {model}")
            case Started(_, device, _):
                await self._say(0, None, f"drawing on {device}")
            case Queued(position, why) if position or why:
                await self._say(0, None, why or f"{position} ahead")

    async def _say(self, done: float, of: float | None, what: str) -> None:
        self._told = max(done, self._told + _A_WORD)
        await self._tell(self._told, of, what)
