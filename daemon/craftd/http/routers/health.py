"""Whether the process lives, and whether pictures can be had."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel

from craftd.http.readiness import Readiness
from craftd.http.services import HttpServices

_RETRY_AFTER_S = 1


class Health(BaseModel):
    status: Literal["ok"] = "ok"


class Ready(BaseModel):
    status: Literal["ready", "starting", "stopping"]


def make_router(services: HttpServices) -> APIRouter:
    router = APIRouter(tags=["Health"])
    readiness = Readiness(services.pool)

    @router.get("/healthz")
    async def healthz() -> Health:
        """The process lives. Needs no key."""
        return Health()

    @router.get("/readyz", responses={503: {"model": Ready, "description": "Not yet, or not any more."}})
    async def readyz(response: Response) -> Ready:
        """A worker serves, or was ended while idle and comes back by itself. Needs no key.

        Where none has served yet, asking starts one.
        """
        state = "stopping" if services.control.status().draining else readiness.look()
        if state != "ready":
            response.status_code = 503
            response.headers["retry-after"] = str(_RETRY_AFTER_S)
        return Ready(status=state)

    return router
