"""What a picture says of how it was made, whichever program made it, as what a job of it would be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from craft_protos.generate import GenerateRequest
from craft_protos.reasons import CraftError
from craft_protos.recipes import asking, finding
from craft_protos.recipes.finding import Here
from craft_protos.recipes.recipe import LoraUse, Named, Recipe
from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from craftd.architectures.architecture import FLOW
from craftd.http.callers import Who
from craftd.http.errors import responses
from craftd.http.sent import body_of, described
from craftd.http.services import HttpServices
from craftd.keys.caller import Caller
from craftd.models.model import Model
from craftd.workers.recipes import recipe_of

RECIPES = "/recipes"
_PICTURE = {"type": "string", "format": "binary"}
_MEDIA_TYPES = ("image/png", "image/jpeg", "image/webp")
_TOLD = ("width", "height", "steps", "guidance_scale", "guidance_rescale", "seed", "clip_skip")


class LoraWish(BaseModel):
    lora: str = Field(description="Its id.")
    name: str
    weight: float


class HiresWish(BaseModel):
    scale: float | None
    strength: float | None
    steps: int | None
    upscaler: str


class WishOut(BaseModel):
    """Fields of a job; null and empty: the picture does not say."""

    prompt: str
    negative_prompt: str
    prompt_syntax: str
    model: str
    width: int | None
    height: int | None
    steps: int | None
    guidance_scale: float | None
    guidance_rescale: float | None
    seed: int | None
    clip_skip: int | None
    sampler: str
    strength: float | None = Field(description="Of the picture that it was drawn from, which it does not hold.")
    hires: HiresWish | None
    loras: list[LoraWish]


class MissingOut(BaseModel):
    what: str = Field(description='As in "the model v1-5 [6ce0161689]".')
    how: str = Field(description="What to do about it.")


class RecipeOut(BaseModel):
    """A picture's settings, as far as craft honours them."""

    program: str
    wish: WishOut
    missing: list[MissingOut] = Field(description="Its model and LoRAs, where they are not here.")
    not_honoured: list[str] = Field(description="What else it says, a setting each.")


def make_router(services: HttpServices) -> APIRouter:
    router = APIRouter(tags=["Jobs"])

    @router.post(
        RECIPES,
        responses=responses("NO_PROVENANCE", "CORRUPT_FILE"),
        openapi_extra=described(dict.fromkeys(_MEDIA_TYPES, _PICTURE)),
    )
    async def read_recipe(request: Request, caller: Who) -> RecipeOut:
        """Read how a picture was made: PNG, JPEG or WebP of craft or another program, the body as the file is.

        Its model and LoRAs are found by their hashes. Nothing is drawn, and nothing kept.
        """
        recipe = await recipe_of(await body_of(request))
        if recipe is None:
            message = "the picture does not say how it was made"
            raise CraftError("NO_PROVENANCE", message, "pictures do that a program drew, and no tool stripped")
        return await _answer(services, caller, recipe)

    return router


async def _answer(services: HttpServices, caller: Caller, recipe: Recipe) -> RecipeOut:
    model = await _model(services, recipe.model)
    loras, missing = _loras(services, caller, recipe.loras)
    upscalers = [part.name for part in services.models.upscalers]
    is_flow = model is not None and model.architecture.predicts == FLOW
    found = asking.asked(recipe, is_flow=is_flow, upscalers=upscalers)
    lost: list[Named] = [recipe.model] if model is None and recipe.model != Named() else []
    return RecipeOut(
        program=recipe.program,
        wish=WishOut(
            **_told(found.request), model=model.name if model is not None else "", strength=found.strength, loras=loras
        ),
        missing=[MissingOut(what=_what(one), how=finding.how_to_get(one)) for one in (*lost, *missing)],
        not_honoured=list(found.not_honoured),
    )


def _told(request: GenerateRequest) -> dict[str, Any]:
    hires = request.hires
    return {
        **{name: getattr(request, name) for name in ("prompt", "negative_prompt", "prompt_syntax", "sampler", *_TOLD)},
        "hires": hires and HiresWish.model_validate(hires, from_attributes=True),
    }


def _what(file: Named) -> str:
    return f"the {'LoRA' if isinstance(file, LoraUse) else 'model'} {finding.told(file)}"


async def _model(services: HttpServices, told: Named) -> Model | None:
    """The one that is meant; by its weights' hash too, which may have to be taken first."""
    views = [view for view in await services.models.list() if not view.model.refused]
    here = [Here(one.model.name, (one.sha256,), one.aliases, one.model.source) for one in views]
    if (found := finding.find(told, here)) is not None:
        return next(view.model for view in views if view.model.name == found.name)
    if not told.hash:
        return None
    try:
        return (await services.models.get(told.hash)).model
    except CraftError as exc:
        if exc.reason != "UNKNOWN_MODEL":
            raise
        return None


def _loras(services: HttpServices, caller: Caller, told: Sequence[LoraUse]) -> tuple[list[LoraWish], list[LoraUse]]:
    """Those that the caller draws with, and those that are not here."""
    seen = services.loras.list(caller)
    here = [Here(one.id, (one.sha256, one.ss_hash), (one.name, one.file_name), one.place.source) for one in seen]
    names = {one.id: one.name for one in seen}
    pairs = [(use, finding.find(use, here)) for use in told]
    wishes = [LoraWish(lora=one.name, name=names[one.name], weight=use.weight) for use, one in pairs if one is not None]
    return wishes, [use for use, one in pairs if one is None]
