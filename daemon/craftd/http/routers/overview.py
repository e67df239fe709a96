"""For admins: keys, models and workers at a glance. The queue is GET /queue's."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel

from craftd.http.callers import Who
from craftd.http.errors import responses
from craftd.http.services import HttpServices
from craftd.http.views import moment


class KeyOut(BaseModel):
    owner: str
    role: str
    tier: str
    state: str
    last_used_time: str | None


class ModelRow(BaseModel):
    name: str
    base: str
    size_bytes: int
    loaded_on: list[str]
    refused: str  # why it cannot be drawn with; "": it can


class WorkerOut(BaseModel):
    name: str
    device: str
    state: str
    models: list[str]
    rows: int
    capacity_rows: int
    is_drained: bool
    restarts: int


class Overview(BaseModel):
    keys: list[KeyOut]
    models: list[ModelRow]
    workers: list[WorkerOut]


def make_router(services: HttpServices) -> APIRouter:
    router = APIRouter(tags=["Daemon"])

    @router.get("/overview", responses=responses("NOT_ALLOWED"))
    async def overview(caller: Who) -> Overview:
        """With an admin's key alone."""
        caller.require_admin("the overview")
        return Overview(keys=_keys(services), models=await _models(services), workers=_workers(services))

    return router


def _keys(services: HttpServices) -> list[KeyOut]:
    return [
        KeyOut(
            owner=key.owner,
            role=key.role.value,
            tier=key.tier,
            state=key.state.value,
            last_used_time=None if key.last_used_time is None else moment(key.last_used_time),
        )
        for key in services.keys.list()
    ]


async def _models(services: HttpServices) -> list[ModelRow]:
    return [
        ModelRow(
            name=view.model.name,
            base=view.model.architecture.id,
            size_bytes=view.model.size_bytes,
            loaded_on=list(view.loaded_on),
            refused=view.model.refused_why,
        )
        for view in await services.models.list()
    ]


def _workers(services: HttpServices) -> list[WorkerOut]:
    return [
        WorkerOut(
            name=one.name,
            device=one.device,
            state=one.state,
            models=list(one.models),
            rows=one.rows,
            capacity_rows=one.capacity_rows,
            is_drained=one.is_drained,
            restarts=one.restarts,
        )
        for one in services.control.status().workers
    ]
