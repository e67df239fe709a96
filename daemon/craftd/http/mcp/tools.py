"""The tools, each with what it takes. Their docstrings are what agents are told of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from craft_protos import samplers
from craft_protos.generate import GenerateRequest, Mask, Reference, Start, Upscale
from mcp_types import CallToolResult, TextContent

from craftd.http import paging
from craftd.http.fields import Body
from craftd.http.mcp import answers, pictures
from craftd.http.mcp.arguments import Edit, Enlarge, Generate, Newest, Nothing, OfJob, OfModel
from craftd.http.mcp.calls import Call, asked_for
from craftd.http.routers.choices import models_alone
from craftd.jobs.job import JobView

_MOST_LISTED = 500  # LoRAs
_OF_EDIT = {"start": "image", "start.strength": "strength", "references": "refs"}  # the service's fields -> the tool's
_OF_UPSCALE = {"start": "image", "upscale.scale": "scale", "upscale.model": "upscaler"}


async def generate(call: Call, asked: Generate) -> CallToolResult:
    """Draw pictures from words. Gives each picture, its file's address, its id and its seed."""
    wanted = replace(asked.generate, width=asked.width, height=asked.height)
    return await pictures.drawn(call, await call.draw(wanted, {}))


async def edit(call: Call, asked: Edit) -> CallToolResult:
    """Draw a picture that begins from another one: image-to-image, or inpainting with a mask."""
    wanted = asked.generate  # wrong words are told of before a picture is looked at
    start = Start(await pictures.named(call, "image", asked.image), asked.strength)
    mask = None if asked.mask is None else Mask(await pictures.named(call, "mask", asked.mask))
    references = [Reference(await pictures.named(call, "refs", one)) for one in asked.refs or ()]
    wanted = replace(wanted, start=start, mask=mask, references=tuple(references))
    return await pictures.drawn(call, await call.draw(wanted, _OF_EDIT))


async def upscale(call: Call, asked: Enlarge) -> CallToolResult:
    """Enlarge a picture. Nothing is drawn."""
    start = Start(await pictures.named(call, "image", asked.image), 0.0)
    wanted = GenerateRequest(start=start, seed=0, upscale=Upscale(asked.upscaler, asked.scale))
    return await pictures.drawn(call, await call.draw(wanted, _OF_UPSCALE))


async def plan(call: Call, asked: Generate) -> CallToolResult:
    """Say what a request would be drawn with and cost: time, memory, how its LoRAs fit. Draws nothing."""
    wanted = replace(asked.generate, width=asked.width, height=asked.height)
    return _told(answers.plan(await call.services.jobs.plan(call.caller, asked_for(wanted), learns=True)))


async def list_models(call: Call, _: Nothing) -> CallToolResult:
    """List the models that can be drawn with."""
    found = await models_alone(call.services)
    return _told([one.model_dump(mode="json", exclude={"loras"}) for one in found])


async def list_loras(call: Call, asked: OfModel) -> CallToolResult:
    """List the LoRAs, with their trigger words and what they are for."""
    found = call.services.loras.list(call.caller)
    if asked.model:
        found = await call.services.jobs.fits.fitting(found, await call.services.models.usable(asked.model))
    left = len(found) - _MOST_LISTED
    note = f"{left} more are left out: name a model to see those that fit it" if left > 0 else ""
    return _told([answers.lora(one, call.caller) for one in found[:_MOST_LISTED]], note)


async def list_samplers(_: Call, __: Nothing) -> CallToolResult:
    """List the samplers and the schedules that each goes with."""
    return _told([{"name": name, "schedules": list(samplers.schedules_of(name))} for name in samplers.SAMPLERS])


async def list_jobs(call: Call, asked: Newest) -> CallToolResult:
    """List jobs, the newest first."""

    async def read(count: int, token: str) -> Sequence[tuple[int, JobView]]:
        return await call.services.jobs.list(call.caller, count, token, ())

    views, token = await paging.page_of(read, paging.bytes_of_job, asked.limit, "")
    note = "older ones are left out: these are long" if token and len(views) < asked.limit else ""
    return _told(await asyncio.to_thread(lambda: [answers.job(view) for view in views]), note)


async def get_job(call: Call, asked: OfJob) -> CallToolResult:
    """Say how a job stands, and which pictures it made."""
    return _told(answers.job(await call.services.jobs.get(call.caller, asked.job)))


async def cancel_job(call: Call, asked: OfJob) -> CallToolResult:
    """Cancel a job that waits or runs; what it has made is kept."""
    return _told(answers.job(await call.services.jobs.cancel(call.caller, asked.job)))


def _told(what: object, note: str = "") -> CallToolResult:
    texts = [json.dumps(what, ensure_ascii=False), *([note] if note else ())]
    return CallToolResult(content=[TextContent(type="text", text=text) for text in texts])


@dataclass(frozen=True)
class Tool:
    arguments: type[Body]
    run: Callable[[Call, Any], Awaitable[CallToolResult]]
    reads: bool = True  # and changes nothing

    @property
    def name(self) -> str:
        return self.run.__name__


_ALL = (
    Tool(Generate, generate, reads=False),
    Tool(Edit, edit, reads=False),
    Tool(Enlarge, upscale, reads=False),
    Tool(Generate, plan),
    Tool(Nothing, list_models),
    Tool(OfModel, list_loras),
    Tool(Nothing, list_samplers),
    Tool(Newest, list_jobs),
    Tool(OfJob, get_job),
    Tool(OfJob, cancel_job, reads=False),
)
TOOLS = {tool.name: tool for tool in _ALL}
