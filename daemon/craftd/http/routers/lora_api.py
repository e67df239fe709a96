"""The Lora API: a picture with a LoRA, as a public url or in base64."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from typing import Literal

from craft_protos.generate import GenerateRequest
from craft_protos.job_request import JobRequest
from craft_protos.lora import LoraRef
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from craftd.http import encoding
from craftd.http.callers import Who, Wished
from craftd.http.drawing import DRAWING, Order, said_as
from craftd.http.errors import LORA_API, responses
from craftd.http.fields import Body, Name, Text, Token
from craftd.http.services import HttpServices
from craftd.http.sizes import side_lengths
from craftd.http.urls import url_of
from craftd.keys.caller import Caller

# The service's names of fields -> the request's.
_NAMES = {"loras": "lora_id", "width": "image_size", "height": "image_size"}
_CHARACTER = re.compile(r"\[your character\]", re.IGNORECASE)

Shape = Literal["square_hd", "square", "portrait_4_3", "portrait_16_9", "landscape_4_3", "landscape_16_9"]


class LoraRequest(Body):
    prompt: Text = Field(description="`[Your Character]` stands for the LoRA's trigger phrase.")
    lora_id: Name = Field(description="Id or name of a registered LoRA; its base model comes with it.")
    response_format: Literal["url", "base64"] = Field(description="A public address, or the picture itself.")
    image_size: Shape = Field(
        "square_hd", description="The model's own number of pixels at that shape, rounded to sides that it can draw."
    )
    token: Token = None


class LoraAnswer(BaseModel):
    """With `url` or `base64`, as asked."""

    status: Literal["success"] = "success"
    url: str | None = None
    base64: str | None = None
    image_id: str
    processing_time: str = Field(description="Seconds, with one decimal.")


def make_router(services: HttpServices) -> APIRouter:
    router = APIRouter(tags=["Lora API"])

    @router.post(LORA_API, response_model_exclude_none=True, responses=responses(*DRAWING))
    async def create(body: LoraRequest, request: Request, response: Response, caller: Who, wish: Wished) -> LoraAnswer:
        """Draw a picture with a LoRA. The header Craft-Image-Size tells its size."""
        began = time.monotonic()
        with said_as(_NAMES):
            generate = await _generate(services, caller, body)
        order = Order(request, caller, wish, generate, public=body.response_format == "url", names=_NAMES)
        image = (await services.drawing.draw(order)).images[0]
        response.headers["Craft-Image-Size"] = f"{image.width}x{image.height}"
        answer = LoraAnswer(image_id=image.id, processing_time=f"{time.monotonic() - began:.1f}")
        if order.public:
            return answer.model_copy(update={"url": url_of(request, image)})
        data = await encoding.read(services.images, image)
        return answer.model_copy(update={"base64": await encoding.as_base64(data)})

    return router


async def _generate(services: HttpServices, caller: Caller, body: LoraRequest) -> GenerateRequest:
    lora = services.loras.find(body.lora_id, caller)
    prompt = _CHARACTER.sub(lambda _: lora.trigger, body.prompt) if lora.trigger else body.prompt
    generate = GenerateRequest(prompt, count=0, loras=(LoraRef(lora.id),))
    if "image_size" not in body.model_fields_set:
        return generate
    model = await services.models.usable((await services.jobs.plan(caller, _asked(generate))).spec.model)
    width, height = side_lengths(body.image_size, model, services.settings.limits)
    return replace(generate, width=width, height=height)


def _asked(generate: GenerateRequest) -> JobRequest:
    return JobRequest("plan", generate)
