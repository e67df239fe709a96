"""Jobs: made, watched, cancelled. A job goes on when whoever made it hangs up, unless it has a lease."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

from craft_protos.generate import (
    MOST_CONTROLS,
    MOST_REFERENCES,
    Control,
    GenerateRequest,
    Hires,
    Mask,
    Reference,
    Refiner,
    Start,
    Upscale,
)
from craft_protos.job_request import JobRequest
from craft_protos.lora import MOST_LORAS
from craft_protos.reasons import invalid
from fastapi import APIRouter, Header, Query, Response
from pydantic import AwareDatetime, BaseModel, Field, create_model

from craftd.http import fields, paging
from craftd.http.callers import Who
from craftd.http.drawing import OF_THE_HEADER, said_as, wish_of
from craftd.http.errors import responses
from craftd.http.eventstream import EVENT_STREAM, EventStream
from craftd.http.fields import Body
from craftd.http.paging import PageSize, PageToken
from craftd.http.services import HttpServices
from craftd.http.views import JobOut
from craftd.jobs.job import JobView, State

_CREATING = (
    *(
        "UNKNOWN_MODEL",
        "UNKNOWN_LORA",
        "UNKNOWN_INPUT",
        "INVALID_FIELD",
        "LORA_MISMATCH",
        "REQUEST_ID_CLASH",
        "QUEUE_FULL",
    ),
    *("RATE_LIMITED", "DRAINING", "DISK_FULL"),
)


class _JobTerms(Body):
    """What a body says of its job besides what to draw, whose fields join it below."""

    request_id: Annotated[str | None, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")] = None
    expire_time: AwareDatetime | None = None
    priority: Literal["interactive", "batch"] = "interactive"
    lease: bool = False
    public: bool = False
    webhook: str = ""
    token: fields.Token = None

    @property
    def generate(self) -> GenerateRequest:
        told: dict[str, Any] = {name: getattr(self, name) for name in _GENERATE}
        told["loras"] = tuple(one.ref for one in told["loras"])
        told |= {name: one and kind(**one.model_dump()) for name, kind in _OBJECTS.items() for one in [told[name]]}
        told["references"] = tuple(Reference(one.sha256) for one in told["references"])
        told["controls"] = tuple(Control(**one.model_dump()) for one in told["controls"])
        return GenerateRequest(**told)


_OBJECTS = {"start": Start, "mask": Mask, "upscale": Upscale, "hires": Hires, "refiner": Refiner}
_SHA256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="Of a picture that POST /inputs took.")]


class ReferenceIn(Body):
    sha256: _SHA256


if TYPE_CHECKING:
    StartIn = MaskIn = UpscaleIn = HiresIn = RefinerIn = Body

    class ControlIn(Body): ...

else:
    StartIn = create_model("StartIn", __base__=Body, **fields.fields_of(Start) | {"sha256": (_SHA256, ...)})
    MaskIn = create_model("MaskIn", __base__=Body, **fields.fields_of(Mask) | {"sha256": (_SHA256, ...)})
    ControlIn = create_model("ControlIn", __base__=Body, **fields.fields_of(Control) | {"sha256": (_SHA256, ...)})
    UpscaleIn = create_model("UpscaleIn", __base__=Body, **fields.fields_of(Upscale))
    HiresIn = create_model("HiresIn", __base__=Body, **fields.fields_of(Hires))
    RefinerIn = create_model("RefinerIn", __base__=Body, **fields.fields_of(Refiner))
_GENERATE = fields.fields_of(GenerateRequest, leave_out=("default_model",)) | {
    "prompt": (fields.Text, ...),
    "start": (StartIn | None, None),
    "mask": (MaskIn | None, None),
    "references": (Annotated[tuple[ReferenceIn, ...], Field(max_length=MOST_REFERENCES)], ()),
    "upscale": (UpscaleIn | None, None),
    "hires": (HiresIn | None, None),
    "refiner": (RefinerIn | None, None),
    "controls": (Annotated[tuple[ControlIn, ...], Field(max_length=MOST_CONTROLS)], ()),
    "loras": (Annotated[tuple[fields.LoraIn, ...], Field(max_length=MOST_LORAS)], ()),
}
if TYPE_CHECKING:
    JobIn = _JobTerms
else:
    JobIn = create_model(
        "JobIn",
        __base__=_JobTerms,
        __doc__="What to draw; what is left out is the model's own default. The names are CreateJob's.",
        **_GENERATE,
    )


class Jobs(BaseModel):
    """A page of them, newest first."""

    jobs: list[JobOut]
    next_page_token: str


def make_router(services: HttpServices) -> APIRouter:
    router = APIRouter(tags=["Jobs"])
    jobs, streams = services.jobs, services.streams

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
        spec=body.generate,
        expire_time=_seconds(body.expire_time),
        priority=body.priority,
        lease=body.lease,
        public=body.public,
        webhook=body.webhook,
    )


def _seconds(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()
