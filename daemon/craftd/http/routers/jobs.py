"""Jobs: made, watched, cancelled. A job goes on when whoever made it hangs up, unless it has a lease."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from craft_protos.reasons import invalid
from fastapi import APIRouter, Header, Query, Response
from pydantic import AwareDatetime, BaseModel, Field

from craftd.http import fields, paging
from craftd.http.callers import Who
from craftd.http.drawing import OF_THE_HEADER, said_as, wish_of
from craftd.http.errors import responses
from craftd.http.eventstream import EVENT_STREAM, EventStream, EventStreams
from craftd.http.fields import Body
from craftd.http.paging import PageSize, PageToken
from craftd.http.services import HttpServices
from craftd.http.views import JobOut
from craftd.jobs.job import GenerateRequest, JobRequest, JobView, Priority, State
from craftd.jobs.validate import MOST_LORAS

_CREATING = (
    *("UNKNOWN_MODEL", "UNKNOWN_LORA", "INVALID_FIELD", "LORA_MISMATCH", "REQUEST_ID_CLASH", "QUEUE_FULL"),
    *("RATE_LIMITED", "DRAINING", "DISK_FULL"),
)


class JobIn(Body):
    """What to draw; what is left out is the model's own default. The names are CreateJob's."""

    prompt: fields.Text
    negative_prompt: fields.Text = ""
    model: fields.Text = ""
    width: fields.Side | None = None
    height: fields.Side | None = None
    steps: fields.Steps | None = None
    guidance_scale: fields.Guidance | None = None
    seed: fields.Seed | None = None
    count: Annotated[fields.Whole, Field(ge=1, le=100_000)] = 1
    sampler: fields.Text = ""
    format: Literal["", "png", "jpeg", "webp"] = ""
    deterministic: bool = False
    indices: tuple[Annotated[fields.Whole, Field(ge=0)], ...] = Field((), max_length=1000)
    loras: tuple[fields.LoraIn, ...] = Field((), max_length=MOST_LORAS)
    lora_missing: Literal["fail", "skip"] = "fail"
    trigger_words: bool = False
    request_id: Annotated[str | None, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")] = None
    expire_time: AwareDatetime | None = None
    priority: Literal["interactive", "batch"] = "interactive"
    lease: bool = False
    public: bool = False
    token: fields.Token = None

    @property
    def generate(self) -> GenerateRequest:
        return GenerateRequest(
            prompt=self.prompt,
            negative_prompt=self.negative_prompt,
            model=self.model,
            width=self.width,
            height=self.height,
            steps=self.steps,
            guidance_scale=self.guidance_scale,
            seed=self.seed,
            count=self.count,
            sampler=self.sampler,
            format=self.format,
            deterministic=self.deterministic,
            indices=self.indices,
            loras=tuple(one.wish for one in self.loras),
            lora_missing=self.lora_missing,
            trigger_words=self.trigger_words,
        )


class Jobs(BaseModel):
    """A page of them, newest first."""

    jobs: list[JobOut]
    next_page_token: str


def make_router(services: HttpServices) -> APIRouter:
    router = APIRouter(tags=["Jobs"])
    jobs, streams = services.jobs, EventStreams(services)

    @router.post("/jobs", status_code=201, responses=responses(*_CREATING))
    async def create_job(
        body: JobIn, caller: Who, response: Response, idempotency_key: Annotated[str | None, Header()] = None
    ) -> JobOut:
        """Stored when this answers. The same `request_id` or Idempotency-Key with the same body is the same job."""
        asked = _request(body, idempotency_key)
        with said_as({} if idempotency_key is None else OF_THE_HEADER):
            view = await jobs.create(caller, asked)
        response.headers["location"] = f"/jobs/{view.job.id}"
        return JobOut.of(view)

    @router.get("/jobs", response_model=Jobs, responses=responses("INVALID_FIELD"))
    async def list_jobs(
        caller: Who,
        page_size: PageSize = 50,
        page_token: PageToken = "",
        state: Annotated[list[State] | None, Query(max_length=10)] = None,
    ) -> Response:
        """Newest first; `state` may be given several times. A page is shorter where its entries are long."""

        async def read(count: int, token: str) -> list[tuple[int, JobView]]:
            return await jobs.list(caller, count, token, tuple(state or ()))

        views, token = await paging.page_of(read, paging.bytes_of_job, page_size, page_token)
        return await paging.written(lambda: Jobs(jobs=[JobOut.of(view) for view in views], next_page_token=token))

    @router.get("/jobs/{job_id}", responses=responses("UNKNOWN_JOB", "AMBIGUOUS_ID"))
    async def get_job(job_id: str, caller: Who) -> JobOut:
        """By its id or a unique beginning of it."""
        return JobOut.of(await jobs.get(caller, job_id))

    @router.delete("/jobs/{job_id}", responses=responses("UNKNOWN_JOB", "AMBIGUOUS_ID", "JOB_FINISHED"))
    async def cancel_job(job_id: str, caller: Who) -> JobOut:
        """It ends within a step. What it has drawn already is kept."""
        return JobOut.of(await jobs.cancel(caller, job_id))

    @router.get(
        "/jobs/{job_id}/events",
        status_code=200,  # EventStream's signature does not say it
        response_class=EventStream,
        responses={**responses("UNKNOWN_JOB", "AMBIGUOUS_ID"), 200: EVENT_STREAM},
    )
    async def job_events(
        job_id: str, caller: Who, preview_every: Annotated[int, Query(ge=0, le=1000)] = 0
    ) -> EventStream:
        """An event stream: a snapshot, then what follows until the end. One that broke is simply asked for again.

        Events: snapshot and finished (a job), queued, loading, started, step, image; of a training, preparing and
        training; problem, where the stream ends before the job does. With `preview_every`, every so many steps have
        a small JPEG in base64.
        """
        job = await jobs.get(caller, job_id)
        return streams.of(caller, job.job.id, preview_every)

    return router


def _request(body: JobIn, idempotency_key: str | None) -> JobRequest:
    if body.request_id is not None and idempotency_key is not None:
        raise invalid("request_id", "goes without Idempotency-Key", "give one of them")
    return JobRequest(
        request_id=body.request_id or wish_of(idempotency_key, None).request_id,
        generate=body.generate,
        expire_time=_seconds(body.expire_time),
        priority=Priority[body.priority.upper()],
        lease=body.lease,
        public=body.public,
    )


def _seconds(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()
