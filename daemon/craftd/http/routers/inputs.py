"""Pictures that jobs begin from, sent before the jobs that name them."""

from __future__ import annotations

from fastapi import APIRouter, Request
from pydantic import BaseModel

from craftd.http.callers import Who
from craftd.http.errors import responses
from craftd.http.inputs import Inputs
from craftd.http.sent import body_of, described
from craftd.http.services import HttpServices
from craftd.http.views import moment
from craftd.inputs.input import Input

INPUTS = "/inputs"
_PICTURE = {"type": "string", "format": "binary"}
_MEDIA_TYPES = ("image/png", "image/jpeg", "image/webp")


class InputOut(BaseModel):
    """A picture, decoded once and found good."""

    sha256: str
    size_bytes: int
    media_type: str
    width: int
    height: int
    has_alpha: bool
    expire_time: str

    @classmethod
    def of(cls, one: Input) -> InputOut:
        return cls(
            sha256=one.sha256,
            size_bytes=one.size_bytes,
            media_type=one.media_type,
            width=one.width,
            height=one.height,
            has_alpha=one.has_alpha,
            expire_time=moment(one.expire_time),
        )


def make_router(services: HttpServices) -> APIRouter:
    router = APIRouter(tags=["Jobs"])
    inputs = Inputs(services.inputs)

    @router.post(
        INPUTS,
        status_code=201,
        responses=responses("BAD_INPUT", "CORRUPT_FILE", "DISK_FULL"),
        openapi_extra=described(dict.fromkeys(_MEDIA_TYPES, _PICTURE)),
    )
    async def send_input(request: Request, caller: Who) -> InputOut:
        """Send a picture to draw from, or a mask: PNG, JPEG or WebP, one frame, the body as the file is.

        Jobs name it by its `sha256`. It is kept for its sender while a job needs it, and a day longer.
        """
        return InputOut.of(await inputs.keep(caller, "picture", await body_of(request)))

    return router
