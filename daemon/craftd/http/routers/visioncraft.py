"""The VisionCraft API: names in arrays, pictures in arrays of base64."""

from __future__ import annotations

import asyncio

from craft_protos.generate import GenerateRequest
from craft_protos.lora import LoraRef
from craft_protos.reasons import invalid
from craft_protos.samplers import SAMPLERS
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from craftd.architectures import registry
from craftd.architectures.rows import unets
from craftd.http import encoding
from craftd.http.callers import Lists, Who, Wished
from craftd.http.drawing import DRAWING, Order, Wish
from craftd.http.errors import responses
from craftd.http.fields import Body, Guidance, Name, Side, Steps, Text, Token, Weight, Whole
from craftd.http.services import HttpServices
from craftd.http.urls import url_of
from craftd.images.image import Image
from craftd.keys.caller import Caller

_CATEGORIES = {name: row.id for row in registry.ROWS for name in row.visioncraft}
_MOST_LORAS = 5
_LATER = ("upscale", "watermark", "nsfw_filter")
_XL = unets.SDXL.id
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
    upscale: bool | None = Field(None, description="Only false. Who says so is answered as the later API does.")
    watermark: bool | None = Field(None, description="Only false, and likewise.")
    nsfw_filter: bool | None = Field(None, description="Only false, and likewise.")

    @property
    def is_later(self) -> bool:
        """The public packages send these, which the first API did not know, and read `images`: addresses."""
        return not self.model_fields_set.isdisjoint(_LATER)

    @property
    def generate(self) -> GenerateRequest:
        """Raises INVALID_FIELD for what craft does not do."""
        for name in _LATER:
            if getattr(self, name):
                raise invalid(name, "is not in craft", "leave it out, or send false")
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
            loras=tuple(LoraRef(name, weight) for name, weight in self.loras.items()),
        )


class Pictures(BaseModel):
    """As the later API answers."""

    images: list[str] = Field(description="Public addresses.")


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
    async def loras(caller: Lists) -> list[str]:
        """The LoRAs' names. Where http.open_lists says so: without a key, of the shared ones."""
        return list(services.loras.names_for(caller))

    @router.get("/image/models")
    async def image_models(_: Who) -> list[str]:
        """The models' names."""
        return await _models(services)

    @router.get("/image/samplers")
    async def image_samplers(_: Who) -> list[str]:
        """The samplers' names."""
        return list(SAMPLERS)

    @router.get("/image/loras/{category}")
    async def image_loras(category: str, caller: Who) -> list[str]:
        """The names of the LoRAs for an architecture, such as SD-1.5 or SDXL-1.0."""
        base = {name.lower(): base for name, base in _CATEGORIES.items()}.get(category.lower())
        if base is None:
            raise invalid("category", "is no architecture", f"known: {', '.join(_CATEGORIES)}")
        return list(services.loras.names_for(caller, base))

    _add_xl(router, services)

    @router.post("/generate", responses=responses(*DRAWING))
    async def generate(body: VisionCraftRequest, request: Request, caller: Who, wish: Wished) -> list[str] | Pictures:
        """Draw up to five pictures: an array of base64 PNGs, or, for the later API's packages, their addresses."""
        if body.is_later:
            return await _published(body, request, caller, wish)
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

    @router.post("/generate-xl", responses=responses(*DRAWING))
    async def generate_xl(body: VisionCraftRequest, request: Request, caller: Who, wish: Wished) -> Pictures:
        """As the later API has it: the pictures' addresses, whatever the model."""
        return await _published(body, request, caller, wish)

    async def _published(body: VisionCraftRequest, request: Request, caller: Caller, wish: Wish) -> Pictures:
        images = await _draw(body, request, caller, wish, public=True)
        return Pictures(images=[url_of(request, image) for image in images])

    async def _draw(
        body: VisionCraftRequest, request: Request, caller: Caller, wish: Wish, *, public: bool = False
    ) -> tuple[Image, ...]:
        order = Order(request, caller, wish, body.generate, public, names=_NAMES)
        return (await services.drawing.draw(order)).images

    return router


def _add_xl(router: APIRouter, services: HttpServices) -> None:
    """What the later API has beside, of one architecture's."""

    @router.get("/models-xl")
    async def models_xl(_: Lists) -> list[str]:
        """The names of the models of SDXL's architecture. Needs no key where http.open_lists says so."""
        views = [view for view in await services.models.list() if not view.model.refused]
        return [view.model.name for view in views if view.model.architecture.id == _XL]

    @router.get("/samplers-xl")
    async def samplers_xl(_: Lists) -> list[str]:
        """The samplers' names. Needs no key where http.open_lists says so."""
        return list(SAMPLERS)

    @router.get("/loras-xl")
    async def loras_xl(caller: Lists) -> list[str]:
        """The names of the LoRAs for SDXL. Where http.open_lists says so: without a key, of the shared ones."""
        return list(services.loras.names_for(caller, _XL))


async def _models(services: HttpServices) -> list[str]:
    """Of those that can be drawn with."""
    return [view.model.name for view in await services.models.list() if not view.model.refused]
