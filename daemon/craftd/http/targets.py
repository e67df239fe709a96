"""What a request is for: its target as the app has it, whatever form it came in, and where the caller is sent.

Targets    absolute-form targets (RFC 9112, 3.2.2), as callers send them that take this server for a proxy; redirects
           lead to where the caller sees this server
Heads      HEAD is what GET is, without the body
"""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Iterable
from urllib.parse import unquote, urlsplit

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Targets:
    """`public_url`: what callers see this server as; "": whatever they call it."""

    def __init__(self, app: ASGIApp, public_url: str) -> None:
        self._app = app
        self._public_url = public_url.rstrip("/")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start" and self._public_url:
                self._lead(MutableHeaders(scope=message))
            await send(message)

        await self._app(_in_origin_form(scope), receive, answer)

    def _lead(self, headers: MutableHeaders) -> None:
        """The app's redirects are to URLs of its own."""
        if found := headers.get("location"):
            parts = urlsplit(found)
            if parts.netloc:
                query = f"?{parts.query}" if parts.query else ""
                headers["location"] = f"{self._public_url}{parts.path}{query}"


def _in_origin_form(scope: Scope) -> Scope:
    """The host that an absolute target names is the one that is meant, whatever the Host header says."""
    raw_path: bytes = scope.get("raw_path", b"")
    if scope["type"] != "http" or not raw_path[:8].lower().startswith((b"http://", b"https://")):
        return scope
    host, slash, path = raw_path.partition(b"://")[2].partition(b"/")
    headers = [(name, value) for name, value in scope["headers"] if name != b"host"]
    whole = slash + path or b"/"
    return {
        **scope,
        "raw_path": whole,
        "path": unquote(whole.decode("ascii")),
        "headers": [(b"host", host), *headers],
    }


class Heads:
    """Next to the app, so that all that stands before it sees what was asked."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        told = _Told(receive, send)
        await self._app({**scope, "method": "GET"}, told.receive, told.send)


class _Told:
    """The answer's head goes out; the rest is dropped, and the app hears that nobody waits for it."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._is_over = asyncio.Event()

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            await self._send(message)
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
            self._is_over.set()

    async def receive(self) -> Message:
        if self._is_over.is_set():
            return {"type": "http.disconnect"}
        return await self._receive()


_NEAR = 0.8


def meant(path: str, known: Iterable[str]) -> str:
    """What to do next, where there is no such route: most have a base URL of another contract."""
    known = list(known)
    if path in known:  # it is the method that is wrong
        return "GET /docs says what the route takes"
    paths = [one for one in known if "{" not in one and one != "/"]
    for one in sorted(paths, key=len):
        if path != "/" and one.endswith(path):
            return f"the route is {one}: the client's base URL is to end with {one.removesuffix(path)}"
    for one in sorted(paths, key=len, reverse=True):
        if path.endswith(one):
            return f"the route is {one}: the client's base URL is not to end with {path.removesuffix(one)}"
    near = difflib.get_close_matches(path[:200], paths, n=1, cutoff=_NEAR)
    return f"did you mean {near[0]}? GET /docs lists them all" if near else "GET /docs lists them all"
