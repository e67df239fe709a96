"""Metrics, for admins."""

from __future__ import annotations

from fastapi import APIRouter, Response

from craftd.http.callers import Who
from craftd.http.errors import responses
from craftd.http.metrics import MEDIA_TYPE, Metrics
from craftd.http.services import HttpServices

_TEXT: dict[str, object] = {
    "description": "The metrics in Prometheus' text format.",
    "content": {"text/plain": {"schema": {"type": "string"}}},
}


def make_router(services: HttpServices) -> APIRouter:
    router = APIRouter(tags=["Operation"])
    kept = Metrics(services.control, services.jobs, services.pool, services.lag)

    @router.get("/metrics", response_class=Response, responses={**responses("NOT_ALLOWED"), 200: _TEXT})
    async def metrics(caller: Who) -> Response:
        """Jobs by state, queue depth, step times, images, workers, memory, the event loop's lag. For an admin's key."""
        caller.require_admin("metrics")
        return Response(await kept.text(), media_type=MEDIA_TYPE)

    return router
