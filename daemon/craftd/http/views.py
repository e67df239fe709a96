"""Jobs and images as JSON, under the names that `craft --json` has."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal, get_type_hints

from craft_protos.generate import GenerateSpec, public_json
from craft_protos.provenance import AppliedLora
from craft_protos.reasons import CraftError
from pydantic import BaseModel, create_model

from craftd.http.errors import public
from craftd.http.wording import spoken
from craftd.images.image import Image
from craftd.jobs.job import JobView, State

_MOMENT = "%Y-%m-%dT%H:%M:%S.%fZ"


class LoraView(BaseModel):
    """A LoRA of a picture."""

    id: str
    name: str
    sha256: str
    weight: float


class _Spec(BaseModel):
    @classmethod
    def of(cls, spec: GenerateSpec) -> SpecView:
        return cls.model_validate(public_json(spec))


if TYPE_CHECKING:
    SpecView = _Spec
else:
    SpecView = create_model(
        "SpecView",
        __base__=_Spec,
        __doc__="What is drawn, every field resolved.",
        **{name: (hint, ...) for name, hint in get_type_hints(GenerateSpec).items() if name != "indices"}
        | {"loras": (list[LoraView], ...)},
    )


class ImageView(BaseModel):
    id: str
    job: str
    index: int
    seed: int
    sha256: str
    media_type: str
    width: int
    height: int
    size_bytes: int
    create_time: str
    model: str
    prompt: str
    loras: list[AppliedLora]
    favourite: bool
    public: bool

    @classmethod
    def of(cls, one: Image) -> ImageView:
        return cls.model_validate(_fields(one))


class WholeImageView(ImageView):
    """With what it was made from; `provenance` is what the file carries too."""

    provenance: dict[str, object]
    generate: SpecView | None

    @classmethod
    def of_made(cls, one: Image, spec: GenerateSpec | None) -> WholeImageView:
        own = spec and spec.of_image(one.index)
        generate = None if own is None else SpecView.of(own).model_copy(update={"seed": one.seed, "count": 1})
        return cls.model_validate({**_fields(one), "provenance": _parsed(one.provenance), "generate": generate})


class ErrorView(BaseModel):
    reason: str
    message: str
    hint: str

    @classmethod
    def of(cls, error: CraftError) -> ErrorView:
        return cls(reason=error.reason, message=public(error.message), hint=public(spoken(error.hint)))


class TimingsView(BaseModel):
    """Seconds."""

    queued_s: float
    load_s: float
    denoise_s: float
    total_s: float


class JobOut(BaseModel):
    id: str
    kind: Literal["generate", "train"]
    state: State
    attempts: int
    position: int
    priority: str
    lease: bool
    public: bool
    create_time: str
    start_time: str | None
    finish_time: str | None
    images: list[ImageView]
    error: ErrorView | None
    generate: SpecView | None
    timings: TimingsView

    @classmethod
    def of(cls, view: JobView) -> JobOut:
        job = view.job
        error = None if job.error is None else CraftError(job.error.reason, job.error.message, job.error.hint)
        return cls(
            id=job.id,
            kind="generate" if isinstance(job.spec, GenerateSpec) else "train",
            state=job.state,
            attempts=job.attempts,
            position=view.position,
            priority=job.priority.name.lower(),
            lease=job.lease,
            public=job.public,
            create_time=moment(job.create_time),
            start_time=None if job.start_time is None else moment(job.start_time),
            finish_time=None if job.finish_time is None else moment(job.finish_time),
            images=[ImageView.of(image) for image in view.images],
            error=None if error is None else ErrorView.of(error),
            generate=SpecView.of(job.spec) if isinstance(job.spec, GenerateSpec) else None,
            timings=TimingsView(
                queued_s=round(job.queued_s, 6),
                load_s=round(job.load_s, 6),
                denoise_s=round(job.denoise_s, 6),
                total_s=round(job.total_s, 6),
            ),
        )


def moment(seconds: float) -> str:
    """RFC 3339, UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime(_MOMENT)


def _fields(one: Image) -> dict[str, object]:
    return {
        "id": one.id,
        "job": one.job_id,
        "index": one.index,
        "seed": one.seed,
        "sha256": one.sha256,
        "media_type": one.media_type,
        "width": one.width,
        "height": one.height,
        "size_bytes": one.size_bytes,
        "create_time": moment(one.create_time),
        "model": one.model,
        "prompt": one.prompt,
        "loras": [asdict(lora) for lora in one.loras],
        "favourite": one.is_favourite,
        "public": one.is_public,
    }


def _parsed(provenance: str) -> dict[str, object]:
    """{} where it is none."""
    try:
        known = json.loads(provenance)
    except ValueError:
        return {}
    return known if isinstance(known, dict) else {}
