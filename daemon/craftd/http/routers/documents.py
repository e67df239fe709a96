"""/docs and the schema it shows: open on loopback, else for any key."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from functools import cache

from craft_protos.addresses import is_loopback
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse

from craftd.http.callers import authenticate
from craftd.http.documentation import page_of
from craftd.http.services import HttpServices

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def make_router(services: HttpServices) -> APIRouter:
    router = APIRouter(tags=["Documentation"])
    is_open = is_loopback(services.settings.http.host)

    async def written(request: Request, write: Callable[[FastAPI], bytes]) -> bytes:
        """Once, and not on the event loop: it takes a while."""
        if not is_open:
            await authenticate(request)
        return await asyncio.to_thread(write, request.app)

    @router.get("/docs", response_class=HTMLResponse)
    async def docs(request: Request) -> Response:
        """Every route, its fields and its answers. Needs no key on loopback, else any."""
        return HTMLResponse(await written(request, _page), headers={"content-security-policy": _POLICY})

    @router.get("/openapi.json", response_class=JSONResponse)
    async def openapi(request: Request) -> Response:
        """The OpenAPI schema. Needs no key on loopback, else any."""
        return Response(await written(request, _schema), media_type="application/json")

    return router


@cache
def _page(app: FastAPI) -> bytes:
    return page_of(app.openapi()).encode()


@cache
def _schema(app: FastAPI) -> bytes:
    return json.dumps(app.openapi()).encode()
