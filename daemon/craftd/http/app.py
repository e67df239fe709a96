"""The FastAPI app: one router per contract, behind the guards."""

from __future__ import annotations

from collections.abc import Callable

from craft_protos.settings import HttpSettings
from craft_protos.version import __version__
from fastapi import APIRouter, FastAPI
from fastapi.middleware.cors import CORSMiddleware
from starlette.routing import Match
from starlette.types import Scope

from craftd.http import errors, schema
from craftd.http.bodies import Bodies
from craftd.http.callers import shows_key
from craftd.http.guards import Crowd, Envelope, Gate, names_of
from craftd.http.page import router as page
from craftd.http.routers import (
    automatic1111,
    automatic1111_controlnet,
    automatic1111_extras,
    automatic1111_finds,
    choices,
    documents,
    gallery,
    health,
    images,
    inputs,
    jobs,
    lora_api,
    mcp,
    metrics,
    openai_images,
    overview,
    queue,
    recipes,
    visioncraft,
)
from craftd.http.services import HttpServices
from craftd.http.targets import Heads, Targets

# In this order they are asked, and shown in the documentation. `images` comes after those whose
# routes also begin with /image.
ROUTERS: tuple[Callable[[HttpServices], APIRouter], ...] = (
    health.make_router,
    lora_api.make_router,
    visioncraft.make_router,
    openai_images.make_router,
    automatic1111.make_router,
    automatic1111_extras.make_router,
    automatic1111_finds.make_router,
    automatic1111_controlnet.make_router,
    images.make_router,
    gallery.make_router,
    jobs.make_router,
    queue.make_router,
    inputs.make_router,
    recipes.make_router,
    mcp.make_router,
    choices.make_router,
    overview.make_router,
    metrics.make_router,
    documents.make_router,
    page.make_router,
)
_MOST_REQUESTS = 400
_MOST_OF_ONE = 300  # address
_ALWAYS = frozenset({"/healthz", "/readyz"})
_MOST_BYTES = 1 << 20
_INFO_BYTES = 16 << 20  # a picture in base64 whose words alone are read
_MCP_BYTES = 16 << 20  # its pictures are in memory as long as its call; POST /inputs takes larger ones
_PICTURE_BYTES = 50 << 20  # to draw from: 12 megapixels that nothing makes smaller, in base64
_DRAWN_FROM = (
    *(inputs.INPUTS, recipes.RECIPES, automatic1111.IMG2IMG, automatic1111.TXT2IMG, automatic1111_controlnet.DETECT),
    *(automatic1111_extras.SINGLE, automatic1111_extras.BATCH),
    *(openai_images.EDITS, openai_images.VARIATIONS),
)
_LARGER: dict[str, int] = {automatic1111.PNG_INFO: _INFO_BYTES, errors.MCP: _MCP_BYTES} | dict.fromkeys(
    _DRAWN_FROM, _PICTURE_BYTES
)
_EXPOSED = ["x-request-id", "ratelimit", "ratelimit-policy", "retry-after", "x-craft-warning", "mcp-session-id"]


def make_app(services: HttpServices, settings: HttpSettings) -> FastAPI:
    """Everything but the server."""
    app = FastAPI(
        title="craft",
        version=__version__,
        description="Text-to-image generation with LoRAs, over four contracts.",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        strict_content_type=False,
    )
    app.state.services = services
    errors.install(app)
    schema.install(app)
    for make_router in ROUTERS:
        app.router.routes.extend(make_router(services).routes)  # flat: one list that can be walked
    _guard(app, services, settings)
    return app


def _guard(app: FastAPI, services: HttpServices, settings: HttpSettings) -> None:
    """The last one added is the outermost."""
    origins = listed(settings.allowed_origins)
    app.add_middleware(Heads)
    app.add_middleware(
        Bodies,
        most_bytes=_MOST_BYTES,
        larger=_LARGER,
        shows_key=lambda scope: shows_key(services.keys, scope),
        takes_json=lambda scope: takes_json(app, scope),
    )
    if origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=origins, allow_methods=["*"], allow_headers=["*"], expose_headers=_EXPOSED
        )
    app.add_middleware(
        Gate, names=names_of(settings.host, settings.public_url, listed(settings.allowed_hosts), origins)
    )
    app.add_middleware(Crowd, most=_MOST_REQUESTS, always=_ALWAYS, most_of_one=_MOST_OF_ONE)
    app.add_middleware(Envelope, render=errors.response_of, unexpected=errors.unexpected)
    app.add_middleware(Targets, public_url=settings.public_url)


def takes_json(app: FastAPI, scope: Scope) -> bool:
    """Whether the body will be decoded: there are routes that take none, or another kind."""
    routes = (route for route in schema.routes_of(app) if route.body_field is not None or route.path == errors.MCP)
    return any(route.matches(scope)[0] is Match.FULL for route in routes)


def listed(text: str) -> list[str]:
    """The parts of a setting that names several."""
    return [part.strip() for part in text.split(",") if part.strip()]
