"""The VisionCraft API: names in arrays, pictures in arrays of base64."""

from __future__ import annotations

import asyncio

from craft_protos.reasons import invalid
from craft_protos.samplers import SAMPLERS
from fastapi import APIRouter, Request, Response
from pydantic import Field

from craftd.http import encoding
from craftd.http.callers import Who, Wished
from craftd.http.drawing import DRAWING, Order, Wish
from craftd.http.errors import responses
from craftd.http.fields import Body, Guidance, Name, Side, Steps, Text, Token, Weight, Whole
from craftd.http.services import HttpServices
from craftd.images.image import Image
from craftd.jobs.job import GenerateRequest, LoraWish
from craftd.keys.caller import Caller

_BASES = {
    "SD-1.4": "sd1",
    "SD-1.5": "sd1",
    "SD-2.0": "sd2",
    "SD-2.1": "sd2",
    "SDXL-1.0": "sdxl",
    "SD-3": "sd3",
    "SD-3.5": "sd3",
    "FLUX.1": "flux",
    "pocket": "pocket",
}
_MOST_LORAS = 5
_NAMES = {"count": "image_count", "guidance_scale": "cfg_scale"}  # the service's of fields -> the request's
_PNG: dict[str, object] = {
    "description": "The picture.",
    "content": {"image/png": {"schema": {"type": "string", "format": "binary"}}},
}


class VisionCraftRequest(Body):
    model: Name = Field(description="One of GET /models.")
    prompt: Text
    image_count: Whole = Field(1, ge=1, le=5)
    token: Token = None
    negative_prompt: Text = ""
    sampler: Name | None = Field(None, description="One of GET /samplers.")
    steps: Steps | None = None
    cfg_scale: Guidance | None = None
    width: Side | None = None
    height: Side | None = None
    loras: dict[Name, Weight] = Field({}, max_length=_MOST_LORAS, description="Name -> weight.")

    @property
    def generate(self) -> GenerateRequest:
        return GenerateRequest(
            self.prompt,
            negative_prompt=self.negative_prompt,
            model=self.model,
            width=self.width,
            height=self.height,
            steps=self.steps,
            guidance_scale=self.cfg_scale,
            count=self.image_count,
            sampler=self.sampler or "",
            format="png",
            loras=tuple(LoraWish(name, weight) for name, weight in self.loras.items()),
        )


def make_router(services: HttpServices) -> APIRouter:
    router = APIRouter(tags=["VisionCraft"])

    @router.get("/models")
    async def models() -> list[str]:
        """The models' names. Needs no key."""
        return await _models(services)

    @router.get("/samplers")
    async def samplers() -> list[str]:
        """The samplers' names. Needs no key."""
        return list(SAMPLERS)

    @router.get("/loras")
    async def loras(_: Who) -> list[str]:
        """The LoRAs' names."""
        return [lora.name for lora in services.loras.list()]

    @router.get("/image/models")
    async def image_models(_: Who) -> list[str]:
        """The models' names."""
        return await _models(services)

    @router.get("/image/samplers")
    async def image_samplers(_: Who) -> list[str]:
        """The samplers' names."""
        return list(SAMPLERS)

    @router.get("/image/loras/{category}")
    async def image_loras(category: str, _: Who) -> list[str]:
        """The names of the LoRAs for an architecture, such as SD-1.5 or SDXL-1.0."""
        base = {name.lower(): base for name, base in _BASES.items()}.get(category.lower())
        if base is None:
            raise invalid("category", "is no architecture", f"known: {', '.join(_BASES)}")
        return list(services.loras.names_for(base))

    @router.post("/generate", responses=responses(*DRAWING))
    async def generate(body: VisionCraftRequest, request: Request, caller: Who, wish: Wished) -> list[str]:
        """Draw up to five pictures: an array of base64 PNGs."""
        images = await _draw(body, request, caller, wish)
        files = [await encoding.read(services.images, image) for image in images]
        return list(await asyncio.gather(*map(encoding.as_base64, files)))

    @router.post("/image/generate", response_class=Response, responses={**responses(*DRAWING), 200: _PNG})
    async def image_generate(body: VisionCraftRequest, request: Request, caller: Who, wish: Wished) -> Response:
        """Draw one picture: the PNG itself."""
        if body.image_count != 1:
            raise invalid("image_count", f"must be 1 here, not {body.image_count}", "POST generate draws several")
        (image,) = await _draw(body, request, caller, wish)
        return Response(await encoding.read(services.images, image), media_type=image.media_type)

    async def _draw(body: VisionCraftRequest, request: Request, caller: Caller, wish: Wish) -> tuple[Image, ...]:
        return (await services.drawing.draw(Order(request, caller, wish, body.generate, names=_NAMES))).images

    return router


async def _models(services: HttpServices) -> list[str]:
    """Of those that can be drawn with."""
    return [view.model.name for view in await services.models.list() if not view.model.refused]
