"""What a job can be made of: the models, what each takes, the LoRAs that fit it."""

from __future__ import annotations

import asyncio

from craft_protos import samplers
from fastapi import APIRouter
from pydantic import BaseModel

from craftd.http.callers import Who
from craftd.http.errors import responses
from craftd.http.services import HttpServices
from craftd.jobs.bases import base_of
from craftd.models.model import Model, ModelView

_FLOW_FAMILIES = ("sd3", "flux")


class DefaultsOut(BaseModel):
    width: int
    height: int
    steps: int
    guidance_scale: float
    sampler: str


class LoraOut(BaseModel):
    id: str
    name: str
    weight: float
    trigger: str


class ModelOut(BaseModel):
    name: str
    built_in: bool
    is_loaded: bool
    base: str
    granularity: int
    defaults: DefaultsOut
    samplers: list[str]
    loras: list[LoraOut]


class Limits(BaseModel):
    """Of one job."""

    max_side: int
    max_pixels: int
    max_steps: int
    max_count: int
    max_prompt_chars: int


class Choices(BaseModel):
    owner: str
    role: str
    default_model: str
    models: list[ModelOut]
    limits: Limits


def make_router(services: HttpServices) -> APIRouter:
    router = APIRouter(tags=["Jobs"])
    limits = Limits.model_validate(services.settings.limits, from_attributes=True)

    @router.get("/choices", responses=responses())
    async def choices(caller: Who) -> Choices:
        """Models that can be drawn with, their defaults, samplers and LoRAs; limits."""
        views = [view for view in await services.models.list() if not view.model.refused]
        bases = await asyncio.to_thread(lambda: [base_of(view.model) for view in views])
        return Choices(
            owner=caller.owner,
            role=caller.role,
            default_model=services.jobs.generating.model,
            models=[_model(services, view, base) for view, base in zip(views, bases, strict=True)],
            limits=limits,
        )

    return router


def _model(services: HttpServices, view: ModelView, base: str) -> ModelOut:
    one, usual = view.model, services.jobs.generating.settings.sampler
    names = _samplers(one)
    defaults = DefaultsOut.model_validate(one.defaults, from_attributes=True)
    defaults.sampler = samplers.canonical(usual or one.defaults.sampler)
    return ModelOut(
        name=one.name,
        built_in=one.built_in,
        is_loaded=bool(view.loaded_on),
        base=base,
        granularity=one.granularity,
        defaults=defaults,
        samplers=list(dict.fromkeys([*names, defaults.sampler])),
        loras=[
            LoraOut(id=lora.id, name=lora.name, weight=lora.weight, trigger=lora.trigger)
            for lora in services.loras.list(base)
        ],
    )


def _samplers(model: Model) -> tuple[str, ...]:
    return samplers.FLOW if model.family in _FLOW_FAMILIES else tuple(samplers.SAMPLERS)
