"""A key's pictures, listed; what each was made from; small ones for a page of many."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Annotated

from craft_protos.generate import GenerateSpec
from craft_protos.reasons import invalid
from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import AwareDatetime, BaseModel, Field

from craftd.http import encoding, paging, zipping
from craftd.http.callers import Who
from craftd.http.errors import responses
from craftd.http.fields import Body, Name, Token
from craftd.http.paging import PageSize, PageToken
from craftd.http.services import HttpServices
from craftd.http.views import ImageView, WholeImageView
from craftd.images.image import Image
from craftd.images.search import Search
from craftd.keys.caller import Caller

_AT_ONCE = 1  # thumbnails being made: each holds a whole picture in memory
_THUMBNAIL: dict[str, object] = {
    "description": "A WebP.",
    "content": {"image/webp": {"schema": {"type": "string", "format": "binary"}}},
}


_ZIP: dict[str, object] = {
    "description": "A zip file.",
    "content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}},
}


class MarksIn(Body):
    favourite: bool | None = None
    public: bool | None = None
    token: Token = None


class ZipIn(Body):
    ids: Annotated[tuple[Name, ...], Field(min_length=1, max_length=zipping.MOST)]
    token: Token = None


class Images(BaseModel):
    """A page of them, newest first."""

    images: list[ImageView]
    next_page_token: str


def make_router(services: HttpServices) -> APIRouter:
    router = APIRouter(tags=["Images"])
    images, room = services.images, asyncio.Semaphore(_AT_ONCE)

    @router.get("/images", response_model=Images, responses=responses("INVALID_FIELD"))
    async def list_images(
        caller: Who,
        *,
        page_size: PageSize = 50,
        page_token: PageToken = "",
        job: Annotated[str, Query(max_length=64)] = "",
        everyone: bool = False,
        prompt: Annotated[str, Query(max_length=1000, description="Words, each in the prompt.")] = "",
        model: Annotated[str, Query(max_length=255, description="A part of its name.")] = "",
        lora: Annotated[str, Query(max_length=255, description="A part of the name of one.")] = "",
        since: AwareDatetime | None = None,
        until: AwareDatetime | None = None,
        favourite: bool = False,
    ) -> Response:
        """The key's own, newest first; with an admin's key, `everyone` lists all. A page of long ones is shorter.

        `prompt`, `model`, `lora`, `since`, `until` and `favourite` leave out what does not fit.
        """
        scope = caller.scope if everyone else caller.owner
        search = Search(prompt, model, lora, _seconds(since), _seconds(until), favourite)

        async def read(count: int, token: str) -> list[tuple[int, Image]]:
            return await images.list(count, token, job, scope, search)

        found, token = await paging.page_of(read, paging.bytes_of_image, page_size, page_token)
        return await paging.written(lambda: Images(images=list(map(ImageView.of, found)), next_page_token=token))

    @router.get("/images/{image_id}/details", responses=responses("UNKNOWN_IMAGE", "AMBIGUOUS_ID"))
    async def image_details(image_id: str, caller: Who) -> WholeImageView:
        """What it was made from."""
        image = await images.get(image_id, caller.scope)
        return WholeImageView.of_made(image, await _spec(services, caller, image))

    @router.get(
        "/images/{image_id}/thumbnail",
        response_class=Response,
        responses={**responses("UNKNOWN_IMAGE", "AMBIGUOUS_ID", "CORRUPT_FILE"), 200: _THUMBNAIL},
    )
    async def thumbnail(image_id: str, caller: Who, side: Annotated[int, Query(ge=16, le=1024)] = 320) -> Response:
        """As small as fits a square of so many pixels; never larger than the picture."""
        image = await images.get(image_id, caller.scope)
        async with room:
            data = await encoding.shrunk(await encoding.read(images, image), side, image.id)
        return Response(data, headers={"cache-control": "private, max-age=86400, immutable"}, media_type="image/webp")

    @router.patch("/images/{image_id}", responses=responses("UNKNOWN_IMAGE", "AMBIGUOUS_ID", "INVALID_FIELD"))
    async def mark_image(image_id: str, caller: Who, body: MarksIn | None = None) -> ImageView:
        """Make it a favourite, or public; what is left out stays. Caches may keep a public one for a day."""
        marks = body or MarksIn()
        return ImageView.of(await images.mark(image_id, caller.scope, favourite=marks.favourite, public=marks.public))

    @router.post(
        "/images/zip",
        response_class=Response,
        responses={**responses("UNKNOWN_IMAGE", "AMBIGUOUS_ID", "INVALID_FIELD"), 200: _ZIP},
    )
    async def zip_images(body: ZipIn, caller: Who) -> Response:
        """Several pictures in one file."""
        chosen = {one.id: one for one in [await images.get(image_id, caller.scope) for image_id in body.ids]}
        if sum(one.size_bytes for one in chosen.values()) > zipping.MOST_BYTES:
            raise invalid("ids", f"are more than {zipping.MOST_BYTES >> 30} GiB together", "ask for fewer at a time")
        headers = {"content-disposition": 'attachment; filename="craft.zip"', "cache-control": "no-store"}
        stream = zipping.zipped(images, list(chosen.values()))
        return StreamingResponse(stream, headers=headers, media_type="application/zip")

    @router.delete("/images/{image_id}", status_code=204, responses=responses("UNKNOWN_IMAGE", "AMBIGUOUS_ID"))
    async def delete_image(image_id: str, caller: Who) -> None:
        """File and all."""
        await images.delete(image_id, caller.scope)

    return router


def _seconds(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()


async def _spec(services: HttpServices, caller: Caller, image: Image) -> GenerateSpec | None:
    spec = (await services.jobs.get(caller, image.job_id)).job.spec
    return spec if isinstance(spec, GenerateSpec) else None
