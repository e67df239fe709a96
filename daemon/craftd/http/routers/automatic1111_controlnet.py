"""What AUTOMATIC1111's ControlNet extension answers beside the drawing itself."""

from __future__ import annotations

import asyncio
import base64

from fastapi import APIRouter

from craftd.http.callers import Who
from craftd.http.drawing import said_as
from craftd.http.errors import responses
from craftd.http.forms.automatic1111_controlnet import (
    MODULES,
    ControlTypesAnswer,
    DetectAnswer,
    DetectRequest,
    ModelListAnswer,
    ModuleListAnswer,
    SettingsAnswer,
    VersionAnswer,
    kind_of,
    title_of,
    types_of,
)
from craftd.http.inputs import Inputs
from craftd.http.services import HttpServices
from craftd.http.uploads import decoded
from craftd.workers import masks

_PREFIX = "/controlnet"
DETECT = f"{_PREFIX}/detect"


def make_router(services: HttpServices) -> APIRouter:
    router = APIRouter(prefix=_PREFIX, tags=["AUTOMATIC1111"])

    @router.get("/version")
    async def version(_: Who) -> VersionAnswer:
        """Of the extension's contract."""
        return VersionAnswer()

    @router.get("/model_list")
    async def model_list(_: Who) -> ModelListAnswer:
        """The control models, with the beginning of their weights' hash."""
        return ModelListAnswer(model_list=list(map(title_of, services.models.controls)))

    @router.get("/module_list")
    async def module_list(_: Who) -> ModuleListAnswer:
        """What craft can make of a picture."""
        names = [name for name in MODULES if name]
        detail = {name: {"model_free": False, "sliders": []} for name in names}
        return ModuleListAnswer(module_list=names, module_detail=detail)

    @router.get("/control_types")
    async def control_types(_: Who) -> ControlTypesAnswer:
        """By what a control model reads: what makes such a picture, and the control models whose names say so."""
        return ControlTypesAnswer(control_types=types_of(services.models.controls))

    @router.get("/settings")
    async def settings(_: Who) -> SettingsAnswer:
        """How many units a call may have."""
        return SettingsAnswer()

    @router.post("/detect", responses=responses("BAD_INPUT", "BAD_DATA", "INVALID_FIELD"))
    async def detect(body: DetectRequest, caller: Who) -> DetectAnswer:
        """What a control model would be shown of these pictures, each in its own size."""
        kind, inputs = kind_of("controlnet_module", body.controlnet_module), Inputs(services.inputs)
        made = []
        for field, encoded in body.pictures:
            kept = await inputs.keep(caller, field, await asyncio.to_thread(decoded, field, encoded))
            _, path = await services.inputs.file(caller.owner, kept.sha256, field)
            with said_as({"picture": field}):
                picture = await masks.mapped(path, kind)
            made.append(base64.b64encode(picture).decode())
        return DetectAnswer(images=made)

    return router
