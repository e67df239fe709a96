"""AUTOMATIC1111's extras: pictures that are enlarged, and what enlarges them."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any, TypeVar

from fastapi import APIRouter, Request

from craftd.http import encoding
from craftd.http.bodies import forgotten
from craftd.http.callers import Who, Wished
from craftd.http.drawing import DRAWING, Order, Wish, said_as
from craftd.http.errors import responses
from craftd.http.forms import automatic1111_upscaling as forms
from craftd.http.forms.automatic1111_upscaling import (
    EXTRAS_NAMES,
    ExtraBatchAnswer,
    ExtraBatchRequest,
    ExtraSingleAnswer,
    ExtraSingleRequest,
    ExtrasRequest,
    UpscalerEntry,
)
from craftd.http.inputs import Inputs
from craftd.http.sent import body_of, checked, described, json_of, schema_of
from craftd.http.services import HttpServices
from craftd.http.uploads import decoded
from craftd.keys.caller import Caller

_PREFIX = "/sdapi/v1"
SINGLE, BATCH = f"{_PREFIX}/extra-single-image", f"{_PREFIX}/extra-batch-images"

_Sent = tuple[str, str]  # the name of a field, and a picture in base64
B = TypeVar("B", bound=ExtrasRequest)


def make_router(services: HttpServices) -> APIRouter:
    router = APIRouter(prefix=_PREFIX, tags=["AUTOMATIC1111"])
    extras = _Extras(services)

    @router.post(SINGLE.removeprefix(_PREFIX), **_about(ExtraSingleRequest))
    async def extra_single_image(request: Request, caller: Who, wish: Wished) -> ExtraSingleAnswer:
        """Enlarge a picture."""
        body = await extras.read(ExtraSingleRequest, request)
        return ExtraSingleAnswer(image=await extras.enlarged(request, (caller, wish), body, ("image", body.image)))

    @router.post(BATCH.removeprefix(_PREFIX), **_about(ExtraBatchRequest))
    async def extra_batch_images(request: Request, caller: Who, wish: Wished) -> ExtraBatchAnswer:
        """Enlarge pictures, one after the other."""
        body, made = await extras.read(ExtraBatchRequest, request), list[str]()
        for number, one in enumerate(body.imageList):
            own = replace(wish, request_id=f"{wish.request_id}-{number}")
            sent = f"imageList[{number}].data", one.data
            made.append(await extras.enlarged(request, (caller, own), body, sent))
        return ExtraBatchAnswer(images=made)

    @router.get("/upscalers")
    async def upscalers(_: Who) -> list[UpscalerEntry]:
        """What enlarges."""
        return forms.entries(services.models.upscalers)

    return router


class _Extras:
    def __init__(self, services: HttpServices) -> None:
        self._services = services

    async def read(self, kind: type[B], request: Request) -> B:
        """The body. Raises INVALID_FIELD for what is not done, before any picture is kept."""
        body = checked(kind, await json_of(await body_of(request)))
        forms.check(body)
        forgotten(request.scope)
        return body

    async def enlarged(self, request: Request, who: tuple[Caller, Wish], body: ExtrasRequest, sent: _Sent) -> str:
        """In base64. Raises BAD_DATA, BAD_INPUT, and what ends its job."""
        (caller, wish), (field, image) = who, sent
        data = await asyncio.to_thread(decoded, field, image)
        kept = await Inputs(self._services.inputs).keep(caller, field, data)
        names = EXTRAS_NAMES | {"start": field}
        order = Order(request, caller, wish, forms.extras(body, kept), names=names)
        with said_as(names):
            view = await self._services.drawing.draw(order)
        return await encoding.as_base64(await encoding.read(self._services.images, view.images[0]))


def _about(kind: type[ExtrasRequest]) -> dict[str, Any]:
    return {
        "responses": responses(*DRAWING, "BAD_INPUT", "BAD_DATA", "UNKNOWN_INPUT"),
        "openapi_extra": described({"application/json": schema_of(kind)}),
    }
