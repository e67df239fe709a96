"""The page's own files, from memory; nothing else is loaded by it, and nothing else may run in it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from craft_protos.reasons import CraftError
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from craftd.http.errors import responses
from craftd.http.services import HttpServices

_FOLDER = Path(__file__).parent / "static"
_INDEX = "index.html"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "connect-src 'self'",
        "form-action 'none'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = {
    "cache-control": "no-cache",
    "content-security-policy": _POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
_FILE: dict[int | str, dict[str, object]] = {
    200: {"description": "The file.", "content": {kind: {"schema": {"type": "string"}} for kind in _TYPES.values()}},
    304: {"description": "The caller has it."},
}


@dataclass(frozen=True)
class File:
    data: bytes
    media_type: str

    @property
    def tag(self) -> str:
        return f'"{hashlib.sha256(self.data).hexdigest()[:32]}"'


class BotOut(BaseModel):
    """The Telegram bot that gives keys."""

    name: str  # "": none runs
    url: str


def make_router(services: HttpServices) -> APIRouter:
    router = APIRouter(tags=["Page"])

    @router.get("/", response_class=Response, responses={**responses(), **_FILE})
    async def page(request: Request) -> Response:
        """The page. Needs no key; it asks for one."""
        return _answer(files()[_INDEX], request)

    @router.get("/page/bot.json", responses=responses())
    async def bot() -> BotOut:
        """Where a key is had from, while the Telegram bot runs. Needs no key."""
        name = services.keys.bot
        return BotOut(name=name, url=f"https://t.me/{name}" if name else "")

    @router.get("/page/{name}", response_class=Response, responses={**responses("UNKNOWN_ROUTE"), **_FILE})
    async def page_file(name: str, request: Request) -> Response:
        """What the page is made of. Needs no key."""
        file = files().get(name)
        if file is None:
            raise CraftError("UNKNOWN_ROUTE", "the page has no such file", "reload it: GET /")
        return _answer(file, request)

    return router


@cache
def files() -> dict[str, File]:
    """By name."""
    return {path.name: File(path.read_bytes(), _TYPES[path.suffix]) for path in sorted(_FOLDER.iterdir())}


def _answer(file: File, request: Request) -> Response:
    headers = {**_HEADERS, "etag": file.tag}
    if request.headers.get("if-none-match") == file.tag:
        return Response(status_code=304, headers=headers)
    return Response(file.data, headers=headers, media_type=file.media_type)
