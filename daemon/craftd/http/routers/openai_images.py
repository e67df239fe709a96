"""OpenAI's Images API, as its own package speaks it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from craft_protos.generate import GenerateRequest
from craft_protos.job_request import JobRequest
from craft_protos.reasons import CraftError
from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from craftd.http import encoding, sse
from craftd.http.callers import Who, Wished
from craftd.http.drawing import DRAWING, Order, said_as
from craftd.http.errors import openai_form, responses
from craftd.http.forms.openai_images import NAMES, Datum, GenerationAnswer, GenerationRequest, ModelEntry, ModelList
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
        order = Order(request, caller, wish, await studio.generate(caller, body), body.is_public, names=NAMES)
        return await studio.stream(body, order) if body.stream else await studio.answer(body, order)

    @router.post(EDITS, include_in_schema=False)
    @router.post(VARIATIONS, include_in_schema=False)
    async def edits(_: Who) -> Response:
        """Image-to-image is not in craft yet."""
        raise CraftError("UNIMPLEMENTED", "image-to-image is not in craft yet", "generations draws from a prompt")

    return router


class _Studio:
    """Draws what a request asks for, and answers as OpenAI does."""

    def __init__(self, services: HttpServices) -> None:
        self._services = services

    async def generate(self, caller: Caller, body: GenerationRequest) -> GenerateRequest:
        """The quality is a number of steps, unless that is given."""
        asked = body.generate
        factor = _STEPS.get(body.quality or "")
        if asked.steps is not None or factor is None:
            return asked
        plan = await self._plan(caller, asked)
        return replace(asked, steps=max(1, round(plan.spec.steps * factor)))

    async def answer(self, body: GenerationRequest, order: Order) -> GenerationAnswer:
        images = (await self._services.drawing.draw(order)).images
        data = [await self._datum(body, order, image) for image in images]
        return GenerationAnswer(created=round(time.time()), data=data, **_shown(body, images[0]))

    async def stream(self, body: GenerationRequest, order: Order) -> StreamingResponse:
        """What is refused is refused before the stream begins."""
        order = await self._with_previews(body, order)
        events = self._services.drawing.follow(order)
        first = await anext(events)
        return StreamingResponse(self._told(body, first, events), media_type=sse.MEDIA_TYPE, headers=sse.HEADERS)

    async def _with_previews(self, body: GenerationRequest, order: Order) -> Order:
        """`partial_images` previews are spread over the steps."""
        if not body.partial_images:
            return order
        plan = await self._plan(order.caller, order.generate)
        every = max(1, plan.spec.steps // (body.partial_images + 1))
        return replace(order, preview_every=every)

    async def _plan(self, caller: Caller, asked: GenerateRequest) -> Plan:
        with said_as(NAMES):
            return await self._services.jobs.plan(caller, JobRequest("plan", asked))

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
        name = "image_generation.completed"
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
    name = "image_generation.partial_image"
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
