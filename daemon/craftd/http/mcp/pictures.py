"""Pictures as tools take and give them: of the caller's own, or sent along; never from a path or a URL."""

from __future__ import annotations

import asyncio
import re

from craft_protos.agents import SHOWN_BYTES, SHOWN_SIDE
from craft_protos.reasons import CraftError
from mcp_types import CallToolResult, ContentBlock, ImageContent, TextContent

from craftd.http import encoding
from craftd.http.drawing import said_as
from craftd.http.inputs import Inputs
from craftd.http.mcp.calls import Call
from craftd.http.uploads import decoded
from craftd.http.urls import own_url_of
from craftd.images.image import Image
from craftd.jobs.job import JobView

_SENT = re.compile(r"[0-9a-f]{64}")
_OWN = re.compile(r"[0-9a-z]{1,64}")
_SHORTEST = 90  # characters of a picture in base64: a PNG of one pixel has more
_HOW = "give the id of a picture of yours, the sha256 that POST /inputs gave, or the picture itself in base64"
_AT_ONCE = asyncio.Semaphore(2)  # decoded ones are large


async def named(call: Call, field: str, text: str) -> str:
    """The sha256 of an input of the caller's. Raises BAD_DATA, BAD_INPUT, UNKNOWN_IMAGE, DISK_FULL, ..."""
    if _SENT.fullmatch(text):
        return text
    if _OWN.fullmatch(text):
        data = await _own(call, field, text)
    elif len(text) < _SHORTEST or "://" in text[:20]:
        why = f"{field}: is no picture and names none: paths and URLs are not read"
        raise CraftError("BAD_DATA", why, _HOW, field=field)
    else:
        data = await asyncio.to_thread(decoded, field, text)
    return (await Inputs(call.services.inputs).keep(call.caller, field, data)).sha256


async def drawn(call: Call, view: JobView) -> CallToolResult:
    """Every picture of a job, as the client sees it, and where the whole one is."""
    content: list[ContentBlock] = []
    told: list[dict[str, object]] = []
    for image in sorted(view.images, key=lambda one: one.index):
        url = own_url_of(call.request, image)
        data, media_type = await _shown(call, image)
        content.append(ImageContent(type="image", data=data, mime_type=media_type))
        content.append(TextContent(type="text", text=f"{url} (id {image.id}, seed {image.seed})"))
        told.append(
            {
                "url": url,
                "id": image.id,
                "job": image.job_id,
                "seed": image.seed,
                "model": image.model,
                "width": image.width,
                "height": image.height,
            }
        )
    return CallToolResult(content=content, structured_content={"images": told})


async def _own(call: Call, field: str, image_id: str) -> bytes:
    with said_as({"": field}):
        image = await call.services.images.get(image_id, call.caller.scope)
    return await encoding.read(call.services.images, image)


async def _shown(call: Call, image: Image) -> tuple[str, str]:
    """(base64, media type), smaller where it is large."""
    async with _AT_ONCE:
        data, media_type = await encoding.read(call.services.images, image), image.media_type
        if len(data) > SHOWN_BYTES:
            data = await encoding.shrunk(data, SHOWN_SIDE, image.id, "JPEG", quality=90)
            media_type = "image/jpeg"
        return await encoding.as_base64(data), media_type
