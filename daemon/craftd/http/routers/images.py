"""Pictures by their ids."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from craft_protos.formats import FORMATS
from craft_protos.reasons import CraftError
from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from craftd.http import encoding
from craftd.http.bare import bare
from craftd.http.callers import Who, key_of
from craftd.http.errors import responses
from craftd.http.services import HttpServices
from craftd.images.image import Image
from craftd.keys.caller import LOCAL

_A_DAY_S = 86400
_VARY = "x-api-key, authorization"
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
        """An image that was asked for as a url: whoever has its id may see it. Needs no key.

        Others than its owner see it without what it was made from, unless http.public_metadata says otherwise; with a
        LoRA that is not shared, always.
        """
        image = await services.images.public(image_id)
        if await _is_owners(services, request, image):
            return await _answer(services, image, request, f"private, max-age={_A_DAY_S}, immutable")
        caching = f"public, max-age={_A_DAY_S}, immutable"
        if await _is_told_all(services, image):
            return await _answer(services, image, request, caching)
        return await _answer_bare(services, image, request, caching)

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


async def _is_owners(services: HttpServices, request: Request, image: Image) -> bool:
    """Whether its owner asks, or an admin; a key that does not fit is as good as none here."""
    try:
        caller = key_of(services.keys, request.scope)
        return caller is not None and bool(await services.images.get(image.id, caller.scope))
    except CraftError:
        return False


async def _is_told_all(services: HttpServices, image: Image) -> bool:
    """Not where a LoRA is private, or gone: it is nobody's business, whatever the configuration tells."""
    if not all(services.loras.is_shared(lora.sha256) for lora in image.loras):
        return False
    owners = [one.strip() for one in services.settings.http.public_metadata.split(",") if one.strip()]
    if not owners or "*" in owners:
        return bool(owners)
    return (await services.jobs.get(LOCAL, image.job_id)).job.owner in owners


async def _answer_bare(services: HttpServices, image: Image, request: Request, caching: str) -> Response:
    headers = {"etag": f'"{image.sha256}-bare"', "cache-control": caching, "vary": _VARY}
    if request.headers.get("if-none-match") == headers["etag"]:
        return Response(status_code=304, headers=headers)
    whole = await encoding.read(services.images, image)
    return Response(
        await asyncio.to_thread(bare, whole, image.media_type), headers=headers, media_type=image.media_type
    )


async def _answer(services: HttpServices, image: Image, request: Request, caching: str) -> Response:
    headers = {"etag": f'"{image.sha256}"', "cache-control": caching, "vary": _VARY}
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
