"""What waits and runs of a key's, how long that may take, and what the key may still ask for."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from craftd.http.callers import Who
from craftd.http.errors import responses
from craftd.http.eventstream import EVENT_STREAM, EventStream
from craftd.http.services import HttpServices
from craftd.http.views import JobOut
from craftd.jobs.outlook import Prospect
from craftd.keys.rates import Rate

MOST_WATCHED = 32
_JobIds = Annotated[list[str], Query(min_length=1, max_length=MOST_WATCHED, description="May be given several times.")]


class ProspectOut(BaseModel):
    """An unfinished job, and what is expected of it from jobs like it; null: none was done here."""

    owner: str
    job: JobOut
    draw_s: float | None = Field(description="Seconds from its start to its end.")
    wait_s: float | None = Field(description="Seconds until it starts; null of one that has.")

    @classmethod
    def of(cls, one: Prospect) -> ProspectOut:
        return cls(owner=one.view.job.owner, job=JobOut.of(one.view), draw_s=one.draw_s, wait_s=one.wait_s)


class AllowanceOut(BaseModel):
    """What the key has, and may have."""

    images_in_flight: int
    most_images_in_flight: int
    jobs_queued: int
    most_jobs_queued: int
    images_last_day: int
    requests_left: int = Field(description="This minute.")
    requests_per_minute: int


class QueueOut(BaseModel):
    queued: int = Field(description="Everybody's jobs that wait.")
    running: int = Field(description="Everybody's that run.")
    jobs: list[ProspectOut] = Field(description="In the order in which they go.")
    allowance: AllowanceOut


def make_router(services: HttpServices) -> APIRouter:
    router = APIRouter(tags=["Jobs"])
    jobs, streams = services.jobs, services.streams

    @router.get("/queue", responses=responses())
    async def queue(caller: Who, everyone: bool = False) -> QueueOut:
        """The key's own jobs that wait or run, and what it may still ask for; an admin's `everyone`: all jobs."""
        found, usage = await jobs.outlook(caller, everyone=everyone), await jobs.usage(caller)
        rate = await services.keys.rate_of(services.keys.get(caller.key_id)) if caller.key_id else Rate()
        return QueueOut(
            queued=found.queued,
            running=found.running,
            jobs=[ProspectOut.of(one) for one in found.prospects],
            allowance=AllowanceOut(
                images_in_flight=usage.images_in_flight,
                most_images_in_flight=usage.most_images_in_flight,
                jobs_queued=found.own_queued,
                most_jobs_queued=found.most_own_queued,
                images_last_day=usage.images_last_day,
                requests_left=rate.remaining,
                requests_per_minute=rate.limit,
            ),
        )

    @router.get("/events", status_code=200, response_class=EventStream, responses={**responses(), 200: EVENT_STREAM})
    async def events(caller: Who, job: _JobIds, preview_every: Annotated[int, Query(ge=0, le=1000)] = 0) -> EventStream:
        """One event stream of several jobs, as each job's own: every event says in `job` whose it is.

        A job that is not there has a `problem`. The stream ends with the last job.
        """
        return streams.of_several(caller, job, preview_every)

    return router
