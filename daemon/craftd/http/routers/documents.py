"""/docs and the schema it shows: open on loopback, else for any key."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse

from craftd.http.callers import authenticate
from craftd.http.documentation import page_of
from craftd.http.guards import is_loopback
from craftd.http.services import HttpServices


def make_router(services: HttpServices) -> APIRouter:
    router = APIRouter(tags=["Documentation"])
    is_open = is_loopback(services.settings.http.host)

    async def require_reader(request: Request) -> None:
        if not is_open:
            await authenticate(request)

    @router.get("/docs", response_class=HTMLResponse)
    async def docs(request: Request) -> HTMLResponse:
        """Every route, its fields and its answers. Needs no key on loopback, else any."""
        await require_reader(request)
        return HTMLResponse(page_of(request.app.openapi()))

    @router.get("/openapi.json", response_class=JSONResponse)
    async def openapi(request: Request) -> JSONResponse:
        """The OpenAPI schema. Needs no key on loopback, else any."""
        await require_reader(request)
        return JSONResponse(request.app.openapi())

    return router
