"""What stands before the app, as plain ASGI: who is spoken to, from where, and how much is said.

Envelope    an id for each request, headers on every answer, no exception gets out
Crowd       so many requests at once
Gate        foreign Host and Origin headers are refused (DNS rebinding)
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import re
import secrets
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from craft_protos.addresses import is_loopback
from craft_protos.reasons import CraftError
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from craftd.keys.failures import place_of

Render = Callable[[CraftError, Scope], Response]

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_MOST_WASTE_BYTES = 64 << 20  # read of a refused body, so that its sender comes to read the answer
_WASTE_TIMEOUT_S = 5.0
_PIECE_BYTES = 64 << 10
_SAFETY = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
}


def request_id_of(scope: Scope) -> str:
    return str(_notes(scope).get("request_id", ""))


def set_header(scope: Scope, name: str, value: str) -> None:
    """Have the answer carry a header, whatever the answer is."""
    headers = _notes(scope).setdefault("headers", {})
    assert isinstance(headers, dict)
    headers[name] = value


def _notes(scope: Scope) -> dict[str, object]:
    notes: dict[str, object] = scope.setdefault("craft", {})
    return notes


class Envelope:
    """The outermost: request ids, headers, and INTERNAL for what nobody has caught."""

    def __init__(self, app: ASGIApp, render: Render, unexpected: Callable[[], CraftError]) -> None:
        self._app = app
        self._render = render
        self._unexpected = unexpected

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        given = Headers(scope=scope).get("x-request-id", "")
        notes = _notes(scope)
        notes["request_id"] = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        incoming, began = _Incoming(receive), time.perf_counter()
        has_begun = False

        async def answer(message: Message) -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                self._add_headers(scope, MutableHeaders(scope=message))
                message["headers"].append((b"server-timing", b"app;dur=%.1f" % ((time.perf_counter() - began) * 1000)))
            for piece in _pieces(message):
                await send(piece)

        try:
            await self._app(scope, incoming.receive, answer)
        except CraftError as exc:  # of the guards: the app renders its own
            await incoming.waste()
            await self._render(exc, scope)(scope, receive, answer)
        except Exception:  # the outermost frame of a request
            error = self._unexpected()
            if not has_begun:
                await self._render(error, scope)(scope, receive, answer)

    def _add_headers(self, scope: Scope, headers: MutableHeaders) -> None:
        notes = _notes(scope)
        headers["x-request-id"] = str(notes["request_id"])
        for name, value in _SAFETY.items():
            headers.setdefault(name, value)
        extra = notes.get("headers")
        for name, value in extra.items() if isinstance(extra, dict) else ():
            headers[name] = value


def _pieces(message: Message) -> Iterator[Message]:
    """No more of a body than a connection holds back, so that what its reader leaves is not kept twice."""
    body: bytes = message.get("body", b"")
    if len(body) <= _PIECE_BYTES:
        yield message
        return
    for start in range(0, len(body), _PIECE_BYTES):
        is_last = start + _PIECE_BYTES >= len(body)
        more_body = not is_last or message.get("more_body", False)
        yield {"type": message["type"], "body": body[start : start + _PIECE_BYTES], "more_body": more_body}


class _Incoming:
    """A request's body, as it is received."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._is_whole = False

    async def receive(self) -> Message:
        message = await self._receive()
        self._is_whole = not message.get("more_body", False)
        return message

    async def waste(self) -> None:
        """Take what is still coming: who closes with bytes unread resets the connection, and nobody reads why."""
        wasted_bytes = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_WASTE_TIMEOUT_S):
                while not self._is_whole and wasted_bytes < _MOST_WASTE_BYTES:
                    wasted_bytes += len((await self.receive()).get("body", b""))


@dataclass(frozen=True)
class Names:
    """What this server may be called. Ports are not looked at: forwarded ones are usual."""

    hosts: frozenset[str]
    origins: frozenset[str]  # besides its own
    takes_any_address: bool  # bound to more than loopback: addresses cannot be rebound

    def knows_host(self, host: str) -> bool:
        name = host_name(host)
        return name in self.hosts or (self.takes_any_address and _is_address(name))

    def knows_origin(self, origin: str, host: str) -> bool:
        if "*" in self.origins or origin in self.origins:
            return True
        try:
            parts = urlsplit(origin)
        except ValueError:
            return False
        return parts.scheme in ("http", "https") and _without_port(parts.netloc, parts.scheme) == _without_port(
            host, parts.scheme
        )


def names_of(listen_host: str, public_url: str, allowed_hosts: Iterable[str], origins: Iterable[str]) -> Names:
    """From the settings."""
    own = {"localhost", "127.0.0.1", "::1"}
    is_open = not is_loopback(listen_host)
    if is_open:
        own |= {listen_host.lower(), socket.gethostname().lower()}
    if public_url:
        own.add(host_name(urlsplit(public_url).netloc))
    public_origin = "{0.scheme}://{0.netloc}".format(urlsplit(public_url))
    more = {public_origin} if public_url else set()
    return Names(
        frozenset(own | {host.lower() for host in allowed_hosts}),
        frozenset(origins) | more,
        takes_any_address=is_open,
    )


def host_name(host: str) -> str:
    """Without the port, lower case; an IPv6 address without its brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower().rstrip(".")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _without_port(netloc: str, scheme: str) -> str:
    return netloc.lower().removesuffix(":443" if scheme == "https" else ":80")


class Gate:
    def __init__(self, app: ASGIApp, names: Names) -> None:
        self._app = app
        self._names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        if len(hosts) != 1 or not self._names.knows_host(hosts[0]):
            raise CraftError(
                "FOREIGN_ORIGIN",
                "Host: the request was made for another host",
                "name it in http.allowed_hosts or http.public_url",
            )
        if any(not self._names.knows_origin(origin, hosts[0]) for origin in origins):
            raise CraftError(
                "FOREIGN_ORIGIN", "Origin: another site's page made the request", "name it in http.allowed_origins"
            )
        await self._app(scope, receive, send)


class Crowd:
    """`most` requests at once, of one address `most_of_one`.

    `always`: paths that answer nevertheless, as long as no body comes with it.
    """

    def __init__(self, app: ASGIApp, most: int, always: frozenset[str], most_of_one: int | None = None) -> None:
        self._app = app
        self._most = most
        self._most_of_one = most if most_of_one is None else most_of_one
        self._always = always
        self._now: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] in self._always and not has_body(Headers(scope=scope)):
            await self._app(scope, receive, send)
            return
        place = place_of(peer_of(scope))
        if self._now.total() >= self._most or self._now[place] >= self._most_of_one:
            raise CraftError("RATE_LIMITED", "too many requests at once", "try again in a moment", retry_after_s=1)
        self._now[place] += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._now[place] -= 1
            if not self._now[place]:
                del self._now[place]


def peer_of(scope: Scope) -> str:
    """The address that a request comes from."""
    client = scope.get("client")
    return str(client[0]) if client else ""


def has_body(headers: Headers) -> bool:
    return "content-length" in headers or "transfer-encoding" in headers
