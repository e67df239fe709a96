"""Pictures by their ids."""

from __future__ import annotations

from collections.abc import AsyncIterator

from craft_protos.formats import FORMATS
from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from craftd.http.callers import Who
from craftd.http.errors import responses
from craftd.http.services import HttpServices
from craftd.images.image import Image

_A_DAY_S = 86400
_PICTURE: dict[str, object] = {
    "description": "The file.",
    "content": {one.media_type: {"schema": {"type": "string", "format": "binary"}} for one in FORMATS.values()},
}


def make_router(services: HttpServices) -> APIRouter:
    router = APIRouter(tags=["Images"])

    @router.get(
        "/image/{image_id}",
        response_class=Response,
        responses={**responses("UNKNOWN_IMAGE"), 200: _PICTURE, 304: {"description": "The caller has it."}},
    )
    async def public_image(image_id: str, request: Request) -> Response:
        """An image that was asked for as a url: whoever has its id may see it. Needs no key."""
        image = await services.images.public(image_id)
        return await _answer(services, image, request, f"public, max-age={_A_DAY_S}, immutable")

    @router.get(
        "/images/{image_id}",
        response_class=Response,
        responses={**responses("UNKNOWN_IMAGE"), 200: _PICTURE, 304: {"description": "The caller has it."}},
    )
    async def own_image(image_id: str, request: Request, caller: Who) -> Response:
        """An image of the key's own, public or not."""
        image = await services.images.get(image_id, caller.scope)
        return await _answer(services, image, request, f"private, max-age={_A_DAY_S}, immutable")

    return router


async def _answer(services: HttpServices, image: Image, request: Request, caching: str) -> Response:
    headers = {"etag": f'"{image.sha256}"', "cache-control": caching}
    if request.headers.get("if-none-match") == headers["etag"]:
        return Response(status_code=304, headers=headers)
    chunks = services.images.chunks(image)
    first = await anext(chunks, b"")  # an error must come before the status does
    headers["content-length"] = str(image.size_bytes)
    return StreamingResponse(_after(first, chunks), headers=headers, media_type=image.media_type)


async def _after(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for chunk in rest:
        yield chunk
