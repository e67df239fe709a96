"""What a job can be made of: the models, what each takes, the LoRAs that fit it."""

from __future__ import annotations

from craft_protos import samplers
from craft_protos.generate import LANCZOS
from craft_protos.reasons import CraftError
from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from craftd.architectures.architecture import FLOW
from craftd.architectures.rows.unets import SDXL_REFINER
from craftd.http.callers import Who
from craftd.http.errors import responses
from craftd.http.services import HttpServices
from craftd.http.sizes import SHAPES, side_lengths
from craftd.jobs import validate
from craftd.jobs.controls import fitting_parts
from craftd.loras.lora import Lora
from craftd.models.model import Model, ModelView

_PREVIEW: dict[str, object] = {
    "description": "A small picture.",
    "content": {one: {"schema": {"type": "string", "format": "binary"}} for one in ("image/png", "image/jpeg")},
}


class DefaultsOut(BaseModel):
    width: int
    height: int
    steps: int
    guidance_scale: float
    sampler: str


class SizeOut(BaseModel):
    shape: str
    width: int
    height: int


class LoraOut(BaseModel):
    id: str
    name: str
    weight: float
    trigger: str
    has_preview: bool = Field(description="Whether GET /loras/{id}/preview answers a picture.")


class ControlOut(BaseModel):
    name: str
    reads: str = Field(description="Which pictures, as far as its name tells.")


class ModelOut(BaseModel):
    name: str
    built_in: bool
    is_loaded: bool
    base: str
    granularity: int = Field(description="Sides are multiples of this, in pixels.")
    largest_side: int
    sizes: list[SizeOut] = Field(description="The model's own number of pixels in several shapes.")
    begins_from_pictures: bool = Field(description="Whether a job of it may have a `start`.")
    takes_masks: bool = Field(description="Whether it may have a `mask`, too.")
    most_references: int = Field(description="How many `references` it may have.")
    takes: list[str] = Field(description="Of a job's fields, those that this model understands and others do not.")
    controls: list[ControlOut] = Field(description="The control models that a job of it may have in its `controls`.")
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
    upscalers: list[str] = Field(description="What enlarges pictures; the first does where none is named.")
    refiners: list[str] = Field(description="Models that may do the last steps of one that takes a `refiner`.")
    limits: Limits


def make_router(services: HttpServices) -> APIRouter:
    router = APIRouter(tags=["Jobs"])
    limits = Limits.model_validate(services.settings.limits, from_attributes=True)

    @router.get("/choices", responses=responses())
    async def choices(caller: Who) -> Choices:
        """Models that can be drawn with, their defaults, samplers and LoRAs; limits."""
        views = await _drawable(services)
        fitting = [await services.jobs.fits.fitting(services.loras.list(caller), view.model) for view in views]
        previewed = await services.loras.previewed()
        return Choices(
            owner=caller.owner,
            role=caller.role,
            default_model=services.jobs.generating.model,
            models=[_model(services, *one, previewed) for one in zip(views, fitting, strict=True)],
            refiners=[view.model.name for view in views if view.model.architecture.id == SDXL_REFINER.id],
            upscalers=_upscalers(services),
            limits=limits,
        )

    @router.get(
        "/loras/{lora_id}/preview", response_class=Response, responses={**responses("UNKNOWN_LORA"), 200: _PREVIEW}
    )
    async def preview(lora_id: str, caller: Who) -> Response:
        """A picture that it was trained to draw, where there is one."""
        lora = services.loras.find(lora_id, caller)
        if not (data := await services.loras.preview(lora)):
            raise CraftError(
                "UNKNOWN_LORA", f"LoRA {lora.name} has no preview", "those have one that were trained here"
            )
        kind = "image/png" if data.startswith(b"\x89PNG") else "image/webp" if data[8:12] == b"WEBP" else "image/jpeg"
        return Response(data, headers={"cache-control": "private, max-age=3600"}, media_type=kind)

    return router


async def models_alone(services: HttpServices) -> list[ModelOut]:
    """Those that can be drawn with, without their LoRAs."""
    return [_model(services, view, [], set()) for view in await _drawable(services)]


async def _drawable(services: HttpServices) -> list[ModelView]:
    return [view for view in await services.models.list() if not view.model.refused]


def _model(services: HttpServices, view: ModelView, fitting: list[Lora], previewed: set[str]) -> ModelOut:
    one, usual = view.model, services.jobs.generating.settings.sampler
    names, allowed = _samplers(one), validate.sizes(one, services.settings.limits)
    defaults = DefaultsOut.model_validate(one.defaults, from_attributes=True)
    defaults.sampler = samplers.canonical(usual or one.defaults.sampler)
    return ModelOut(
        name=one.name,
        built_in=one.built_in,
        is_loaded=bool(view.loaded_on),
        base=one.architecture.id,
        granularity=allowed.granularity,
        largest_side=allowed.largest_side,
        begins_from_pictures="start" in one.architecture.takes,
        takes_masks="mask" in one.architecture.takes,
        most_references=one.architecture.most_references if "references" in one.architecture.takes else 0,
        sizes=[_size(shape, one, services) for shape in SHAPES],
        takes=sorted(one.architecture.takes),
        controls=[
            ControlOut(name=part.name, reads=part.reads) for part in fitting_parts(one, services.models.controls)
        ],
        defaults=defaults,
        samplers=list(dict.fromkeys([*names, defaults.sampler])),
        loras=[_lora(lora, previewed) for lora in fitting],
    )


def _lora(lora: Lora, previewed: set[str]) -> LoraOut:
    has_preview = lora.id in previewed
    return LoraOut(id=lora.id, name=lora.name, weight=lora.weight, trigger=lora.trigger, has_preview=has_preview)


def _size(shape: str, model: Model, services: HttpServices) -> SizeOut:
    width, height = side_lengths(shape, model, services.settings.limits)
    return SizeOut(shape=shape, width=width, height=height)


def _upscalers(services: HttpServices) -> list[str]:
    names = (part.name for part in services.models.upscalers)
    return list(dict.fromkeys((services.models.usual_upscaler, *names, LANCZOS)))


def _samplers(model: Model) -> tuple[str, ...]:
    return samplers.FLOW if model.architecture.predicts == FLOW else tuple(samplers.SAMPLERS)
