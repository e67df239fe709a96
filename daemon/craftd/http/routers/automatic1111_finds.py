"""What AUTOMATIC1111's clients ask for to learn what a server can: true answers, empty ones for what craft has not.

The shapes are those of its API and of its ControlNet extension.
"""

from __future__ import annotations

from typing import Any

from craft_protos.version import __version__
from fastapi import APIRouter

from craftd.http.callers import Who
from craftd.http.services import HttpServices

_LISTS = {
    "latent-upscale-modes": "Ways to upscale latents: craft enlarges pictures.",
    "sd-vae": "Autoencoders to choose from: craft takes a model's own.",
    "sd-modules": "Parts to choose from: craft takes a model's own.",
    "hypernetworks": "Hypernetworks: craft has none.",
    "face-restorers": "Face restorers: craft has none.",
    "realesrgan-models": "Upscalers of one kind: craft has none.",
    "prompt-styles": "Styles: craft has none.",
    "script-info": "Scripts and their arguments: craft has none.",
    "extensions": "Extensions: craft has none.",
}


def make_router(services: HttpServices) -> APIRouter:
    router = APIRouter(tags=["AUTOMATIC1111"])
    for name, what in _LISTS.items():
        _add_empty_list(router, f"/sdapi/v1/{name}", what)
    _add_rest(router, services)
    return router


def _add_empty_list(router: APIRouter, path: str, what: str) -> None:
    @router.get(path, description=what, name=path)
    async def nothing(_: Who) -> list[dict[str, Any]]:
        return []


def _add_rest(router: APIRouter, services: HttpServices) -> None:
    @router.get("/sdapi/v1/cmd-flags")
    async def cmd_flags(_: Who) -> dict[str, Any]:
        """What the server was started with, of their flags."""
        return {"api": True, "listen": services.settings.http.host, "port": services.settings.http.port}

    @router.get("/sdapi/v1/embeddings")
    async def embeddings(_: Who) -> dict[str, dict[str, Any]]:
        """Textual inversions: craft has none."""
        return {"loaded": {}, "skipped": {}}

    @router.get("/sdapi/v1/scripts")
    async def scripts(_: Who) -> dict[str, list[str]]:
        """Scripts: craft draws with that of one extension."""
        return {"txt2img": ["controlnet"], "img2img": ["controlnet"]}

    @router.get("/sdapi/v1/memory")
    async def memory(_: Who) -> dict[str, dict[str, Any]]:
        """Bytes in use, of the daemon and its workers; of a device, where one is in use."""
        return _memory(services)

    @router.post("/sdapi/v1/refresh-vae")
    @router.post("/sdapi/v1/refresh-embeddings")
    async def refresh(_: Who) -> dict[str, Any]:
        """Nothing to do."""
        return {}

    @router.get("/internal/ping")
    async def ping(_: Who) -> dict[str, Any]:
        """The server answers."""
        return {}

    @router.get("/config")
    async def config(_: Who) -> dict[str, Any]:
        """Of their page, whose parts clients of old called: craft has none of them."""
        return {"version": __version__, "mode": "blocks", "components": [], "dependencies": []}


def _memory(services: HttpServices) -> dict[str, dict[str, Any]]:
    import psutil  # few ask

    status, total = services.control.status(), psutil.virtual_memory().total
    used = status.rss_bytes + sum(worker.rss_bytes for worker in status.workers)
    on_device = [worker.device_bytes for worker in status.workers if worker.device.startswith("cuda")]
    cuda: dict[str, Any] = {"system": {"used": sum(on_device)}} if on_device else {"error": "unavailable"}
    return {"ram": {"free": total - used, "used": used, "total": total}, "cuda": cuda}
