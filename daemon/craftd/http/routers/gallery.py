"""A key's pictures, listed; what each was made from; small ones for a page of many."""

from __future__ import annotations

import asyncio
import io
from typing import Annotated

from craft_protos.formats import FORMATS
from craft_protos.generate import GenerateSpec
from craft_protos.reasons import CraftError
from fastapi import APIRouter, Query, Response
from PIL import Image as Pictures
from pydantic import BaseModel

from craftd.http import encoding, paging
from craftd.http.callers import Who
from craftd.http.errors import responses
from craftd.http.paging import PageSize, PageToken
from craftd.http.services import HttpServices
from craftd.http.views import ImageView, WholeImageView
from craftd.images.image import Image
from craftd.keys.caller import Caller

_AT_ONCE = 1  # thumbnails being made: each holds a whole picture in memory
_THUMBNAIL: dict[str, object] = {
    "description": "A WebP.",
    "content": {"image/webp": {"schema": {"type": "string", "format": "binary"}}},
}


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
        page_size: PageSize = 50,
        page_token: PageToken = "",
        job: Annotated[str, Query(max_length=64)] = "",
        everyone: bool = False,
    ) -> Response:
        """The key's own, newest first; with an admin's key, `everyone` lists all. A page of long ones is shorter."""
        scope = caller.scope if everyone else caller.owner

        async def read(count: int, token: str) -> list[tuple[int, Image]]:
            return await images.list(count, token, job, scope)

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
            data = await asyncio.to_thread(_shrunk, await encoding.read(images, image), side, image.id)
        return Response(data, headers={"cache-control": "private, max-age=86400, immutable"}, media_type="image/webp")

    @router.delete("/images/{image_id}", status_code=204, responses=responses("UNKNOWN_IMAGE", "AMBIGUOUS_ID"))
    async def delete_image(image_id: str, caller: Who) -> None:
        """File and all."""
        await images.delete(image_id, caller.scope)

    return router


async def _spec(services: HttpServices, caller: Caller, image: Image) -> GenerateSpec | None:
    spec = (await services.jobs.get(caller, image.job_id)).job.spec
    return spec if isinstance(spec, GenerateSpec) else None


def _shrunk(data: bytes, side: int, image_id: str) -> bytes:
    """Raises CORRUPT_FILE: a disk may lose bits."""
    stream = io.BytesIO()
    try:
        with Pictures.open(io.BytesIO(data), formats=[one.pillow for one in FORMATS.values()]) as picture:
            picture.thumbnail((side, side))
            picture.convert("RGB").save(stream, "WEBP", quality=80)
    except (OSError, SyntaxError, ValueError) as exc:
        raise CraftError("CORRUPT_FILE", f"image {image_id}: the file is damaged", "draw it again") from exc
    return stream.getvalue()
