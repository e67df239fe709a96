"""OpenAI's Images API, as its own package speaks it."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Any, TypeVar

from craft_protos.generate import GenerateRequest, Start
from craft_protos.job_request import JobRequest
from craft_protos.reasons import CraftError
from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from craftd.http import encoding, sse
from craftd.http.bodies import forgotten
from craftd.http.callers import Who, Wished
from craftd.http.drawing import DRAWING, Order, said_as
from craftd.http.errors import openai_form, responses
from craftd.http.forms.openai_edits import (
    EDIT_NAMES,
    EditRequest,
    Sent,
    VariationRequest,
    documented,
    sent_as_form,
    sent_as_json,
)
from craftd.http.forms.openai_images import NAMES, Datum, GenerationAnswer, GenerationRequest, ModelEntry, ModelList
from craftd.http.inputs import Inputs
from craftd.http.multipart import is_multipart, parse
from craftd.http.sent import body_of, checked, json_of
from craftd.http.services import HttpServices
from craftd.http.urls import url_of
from craftd.images.image import Image
from craftd.jobs.events import Event, ImageMade, Snapshot, Step
from craftd.jobs.job import Plan
from craftd.keys.caller import Caller

_STEPS = {"low": 0.5, "high": 1.5, "hd": 1.5}  # of the model's own number
_USAGE = {
    "total_tokens": 0,
    "input_tokens": 0,
    "output_tokens": 0,
    "input_tokens_details": {"text_tokens": 0, "image_tokens": 0},
}
E = TypeVar("E", bound=EditRequest)
_ANY = "0" * 64  # of a picture that is not kept yet
EDITS, VARIATIONS = "/v1/images/edits", "/v1/images/variations"


def make_router(services: HttpServices) -> APIRouter:
    router = APIRouter(tags=["OpenAI Images"])
    studio = _Studio(services)

    @router.get("/v1/models")
    async def models(_: Who) -> ModelList:
        """The models."""
        views = await services.models.list()
        return ModelList(data=[_entry(view.model.name) for view in views if not view.model.refused])

    @router.get("/v1/models/{model:path}", responses=responses("UNKNOWN_MODEL"))
    async def model(model: str, _: Who) -> ModelEntry:
        """One of them, by name or alias."""
        return _entry((await services.models.usable(model)).name)

    @router.post(
        "/v1/images/generations",
        response_model=GenerationAnswer,
        response_model_exclude_none=True,
        responses={**responses(*DRAWING), 200: {"content": {sse.MEDIA_TYPE: {"schema": sse.SCHEMA}}}},
    )
    async def generations(body: GenerationRequest, request: Request, caller: Who, wish: Wished) -> Any:
        """Draw pictures; with `stream`, as server-sent events with previews."""
        order = Order(request, caller, wish, body.generate, body.is_public, names=NAMES)
        return await studio.draw(body, order)

    _add_edits(router, services, studio)
    return router


def _add_edits(router: APIRouter, services: HttpServices, studio: _Studio) -> None:
    easel = _Easel(services)

    def route(path: str, kind: type[EditRequest]) -> Callable[[Any], Any]:
        streamed = {"content": {sse.MEDIA_TYPE: {"schema": sse.SCHEMA}}}
        return router.post(
            path,
            response_model=GenerationAnswer,
            response_model_exclude_none=True,
            responses={**responses(*DRAWING, "BAD_INPUT", "BAD_DATA", "UNKNOWN_INPUT"), 200: streamed},
            openapi_extra=documented(kind),
        )

    @route(EDITS, EditRequest)
    async def edits(request: Request, caller: Who, wish: Wished) -> Any:
        """Edit pictures: a model that edits is shown them all, up to 16, in their order; others begin from the one.

        The pictures come as files of a form, or in a JSON body. `mask`: what is transparent in it is drawn anew, the
        rest stays. With `stream`, as server-sent events.
        """
        body, generate = await easel.read(request, caller, EditRequest)
        return await studio.draw(body, Order(request, caller, wish, generate, body.is_public, names=EDIT_NAMES))

    @route(VARIATIONS, VariationRequest)
    async def variations(request: Request, caller: Who, wish: Wished) -> Any:
        """Draw others like a picture: `edits` without a prompt, unless one is given."""
        body, generate = await easel.read(request, caller, VariationRequest)
        return await studio.draw(body, Order(request, caller, wish, generate, body.is_public, names=EDIT_NAMES))


class _Easel:
    """Puts the pictures of a request where its job finds them, and forgets them."""

    def __init__(self, services: HttpServices) -> None:
        self._jobs = services.jobs
        self._inputs = Inputs(services.inputs)

    async def read(self, request: Request, caller: Caller, kind: type[E]) -> tuple[E, GenerateRequest]:
        """Raises what is wrong with the fields, then with the pictures."""
        sent = await _sent(request)
        body = checked(kind, sent.fields)
        most = await self._most_shown(caller, body)
        sent.require_images(most or 1)
        asked = body.shown if most else lambda images, mask: body.drawn_from(images[0], mask)
        asked([""] * len(sent.images), sent.mask and "")
        images = [(await self._inputs.keep(caller, *one)).sha256 for one in sent.images]
        mask = None if sent.mask is None else await self._mask(caller, *sent.mask)
        forgotten(request.scope)
        return body, asked(images, mask)

    async def _most_shown(self, caller: Caller, body: EditRequest) -> int:
        """How many pictures the model is shown, where it edits what it is shown; 0: it begins from one."""
        if not body.edits:
            return 0
        asked = replace(body.generate, start=Start(_ANY))
        with said_as(EDIT_NAMES):
            architecture = (await self._jobs.model_of(caller, asked)).architecture
        return architecture.most_references if "references" in architecture.takes else 0

    async def _mask(self, caller: Caller, field: str, data: bytes | memoryview) -> str:
        """Of craft's own kind. Raises BAD_INPUT."""
        mask = await self._inputs.keep(caller, field, data)
        if not mask.has_alpha:
            why = "has no alpha channel, and what is transparent is drawn anew"
            raise CraftError("BAD_INPUT", f"{field}: {why}", "send a PNG with transparent parts", field=field)
        return (await self._inputs.converted(caller, field, mask, "transparent")).sha256


async def _sent(request: Request) -> Sent:
    """Whatever a body that is no form is called, it is JSON."""
    body, content_type = await body_of(request), request.headers.get("content-type", "")
    if is_multipart(content_type):
        return await asyncio.to_thread(lambda: sent_as_form(parse(content_type, body)))
    given = await json_of(body)
    return await asyncio.to_thread(sent_as_json, given)


class _Studio:
    """Draws what a request asks for, and answers as OpenAI does."""

    def __init__(self, services: HttpServices) -> None:
        self._services = services

    async def draw(self, body: GenerationRequest, order: Order) -> Any:
        """What is refused is refused before a stream begins."""
        order = await self._with_quality(body, order)
        return await self._stream(body, order) if body.stream else await self._answer(body, order)

    async def _with_quality(self, body: GenerationRequest, order: Order) -> Order:
        """The quality is a number of steps, unless that is given."""
        factor = _STEPS.get(body.quality or "")
        if order.generate.steps is not None or factor is None:
            return order
        plan = await self._plan(order)
        steps = max(1, round(plan.spec.steps * factor))
        return replace(order, generate=replace(order.generate, steps=steps))

    async def _answer(self, body: GenerationRequest, order: Order) -> GenerationAnswer:
        images = (await self._services.drawing.draw(order)).images
        data = [await self._datum(body, order, image) for image in images]
        return GenerationAnswer(created=round(time.time()), data=data, **_shown(body, images[0]))

    async def _stream(self, body: GenerationRequest, order: Order) -> StreamingResponse:
        order = await self._with_previews(body, order)
        events = self._services.drawing.follow(order)
        first = await anext(events)
        return StreamingResponse(self._told(body, first, events), media_type=sse.MEDIA_TYPE, headers=sse.HEADERS)

    async def _with_previews(self, body: GenerationRequest, order: Order) -> Order:
        """`partial_images` previews are spread over the steps."""
        if not body.partial_images:
            return order
        plan = await self._plan(order)
        every = max(1, plan.spec.steps // (body.partial_images + 1))
        return replace(order, preview_every=every)

    async def _plan(self, order: Order) -> Plan:
        with said_as(order.names):
            return await self._services.jobs.plan(order.caller, JobRequest("plan", order.generate))

    async def _told(
        self, body: GenerationRequest, first: Event, events: AsyncGenerator[Event, None]
    ) -> AsyncIterator[bytes]:
        partials, most = Counter[int](), body.partial_images or 0
        async with aclosing(events):
            try:
                for image in first.view.images if isinstance(first, Snapshot) else ():
                    yield await self._completed(body, image)
                async for event in events:
                    match event:
                        case Step(index=index, preview=preview) if preview and partials[index] < most:
                            yield await _partial(body, event, partials[index])
                            partials[index] += 1
                        case ImageMade(image):
                            yield await self._completed(body, image)
            except CraftError as exc:
                error = {"type": "error", "error": openai_form(exc)}
                yield sse.event("error", error)

    async def _completed(self, body: GenerationRequest, image: Image) -> bytes:
        name = f"{body.EVENTS}.completed"
        return sse.event(
            name,
            {
                "type": name,
                "b64_json": await encoding.as_base64(await self._file(body, image)),
                "created_at": round(time.time()),
                **_shown(body, image),
                "usage": _USAGE,
            },
        )

    async def _datum(self, body: GenerationRequest, order: Order, image: Image) -> Datum:
        if body.is_public:
            return Datum(url=url_of(order.request, image))
        return Datum(b64_json=await encoding.as_base64(await self._file(body, image)))

    async def _file(self, body: GenerationRequest, image: Image) -> bytes:
        data = await encoding.read(self._services.images, image)
        if not body.compresses:
            return data
        assert body.output_format is not None and body.output_compression is not None
        return await encoding.encode_again(data, body.output_format, body.output_compression, image.provenance)


async def _partial(body: GenerationRequest, step: Step, number: int) -> bytes:
    name = f"{body.EVENTS}.partial_image"
    return sse.event(
        name,
        {
            "type": name,
            "b64_json": await encoding.as_base64(step.preview),
            "created_at": round(time.time()),
            "partial_image_index": number,
            "background": "opaque",
            "output_format": "jpeg",  # previews are small ones
            "quality": body.quality or "auto",
            "size": body.size or "auto",
        },
    )


def _shown(body: GenerationRequest, image: Image) -> dict[str, str]:
    return {
        "background": "opaque",
        "output_format": body.output_format or "png",
        "quality": body.quality or "auto",
        "size": f"{image.width}x{image.height}",
    }


def _entry(name: str) -> ModelEntry:
    return ModelEntry(id=name, created=0)
