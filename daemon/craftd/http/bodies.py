"""The whole body is read before the app is asked: its size and shape have limits, and so have all of them together."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable, Mapping

from craft_protos.reasons import CraftError
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from craftd.http.guards import has_body, peer_of
from craftd.http.shape import check_shape
from craftd.keys.failures import place_of

_KNOWN_BYTES = 128 << 20  # of bodies in memory at once, of callers whose headers have a key
_OTHERS_BYTES = 64 << 20  # the others' room is their own: who has a key is not kept out by them
_MOST_OTHERS = 100
_SHARE = 0.5  # of either, that one caller may have: a key's owner, or an address
_TIMEOUT_S = 60.0
_FORGET = "craft.forget_body"  # in a request's scope

ShowsKey = Callable[[Scope], Hashable]


class Room:
    """For so many bodies and bytes, those still arriving among them, of which one caller has a `share` at most."""

    def __init__(self, most_bytes: int, most_bodies: int | None = None, share: float = 1.0) -> None:
        self._most_bytes = most_bytes
        self._most_bodies = math.inf if most_bodies is None else most_bodies
        self._share = share
        self._bytes_of: Counter[Hashable] = Counter()
        self._bodies_of: Counter[Hashable] = Counter()
        self.held_bytes = 0
        self.bodies = 0

    def enter(self, caller: Hashable) -> None:
        """Raises RATE_LIMITED."""
        if self.bodies >= self._most_bodies or self._bodies_of[caller] >= self._share * self._most_bodies:
            raise CraftError("RATE_LIMITED", "too many bodies at once", "try again", retry_after_s=1)
        self.bodies += 1
        self._bodies_of[caller] += 1

    def take(self, count: int, caller: Hashable) -> None:
        """Raises RATE_LIMITED."""
        own_bytes = self._bytes_of[caller] + count
        if self.held_bytes + count > self._most_bytes or own_bytes > self._share * self._most_bytes:
            raise CraftError("RATE_LIMITED", "too many large bodies at once", "try again", retry_after_s=1)
        self.held_bytes += count
        self._bytes_of[caller] = own_bytes

    def leave(self, count: int, caller: Hashable) -> None:
        self.held_bytes -= count
        self.bodies -= 1
        for held, gone in ((self._bytes_of, count), (self._bodies_of, 1)):
            held[caller] -= gone
            if not held[caller]:
                del held[caller]


class Bodies:
    """`larger`: paths that take up to so many bytes, from callers with a key, where others take `most_bytes`.

    `shows_key`: whose key the headers have, false for nobody's; raises where it is a wrong one. `takes_json`: whether a
    request's body will be decoded.
    """

    def __init__(
        self,
        app: ASGIApp,
        most_bytes: int,
        larger: Mapping[str, int],
        *,
        shows_key: ShowsKey,
        takes_json: Callable[[Scope], bool] = lambda _: True,
        known: Room | None = None,
        others: Room | None = None,
    ) -> None:
        self._app = app
        self._most_bytes = most_bytes
        self._larger = larger
        self._shows_key = shows_key
        self._takes_json = takes_json
        self._known = known or Room(_KNOWN_BYTES, share=_SHARE)
        self._others = others or Room(_OTHERS_BYTES, _MOST_OTHERS, _SHARE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        limit = self._larger.get(scope["path"], self._most_bytes)
        _check_form(headers, limit)
        if not has_body(headers):
            await self._app(scope, receive, send)
            return
        owner = self._shows_key(scope)
        body = _Body(self._known, owner) if owner else _Body(self._others, place_of(peer_of(scope)))
        try:
            if owner:
                await _read(receive, body, limit, _too_big(limit))
            else:
                await self._read_unknown(headers, receive, body, limit)
            await self._pass_on(body, scope, receive, send)
        finally:
            body.leave()

    async def _read_unknown(self, headers: Headers, receive: Receive, body: _Body, limit: int) -> None:
        refusal = _too_big(limit) if limit <= self._most_bytes else _keyless(self._most_bytes)
        if _declared_bytes(headers) > self._most_bytes:
            raise refusal
        await _read(receive, body, min(limit, self._most_bytes), refusal)

    async def _pass_on(self, body: _Body, scope: Scope, receive: Receive, send: Send) -> None:
        """Whose picture is drawn takes no room meanwhile; what is done with larger ones is over soon."""
        whole = body.whole()
        if self._takes_json(scope):
            scope = _as_json(scope)
            await check_shape(whole)
        on_read = body.leave if len(whole) <= self._most_bytes else _nothing
        replay = _replay([whole], receive, on_read)
        del whole  # whoever reads it may forget it
        await self._app({**scope, _FORGET: body.leave}, replay, send)


class _Body:
    """As far as it has come, and its place in the room. Raises RATE_LIMITED where there is none."""

    def __init__(self, room: Room, caller: Hashable) -> None:
        room.enter(caller)
        self._room = room
        self._caller = caller
        self._received = bytearray()
        self._has_left = False
        self.size_bytes = 0

    def add(self, chunk: bytes) -> None:
        """Raises RATE_LIMITED."""
        self._room.take(len(chunk), self._caller)
        self.size_bytes += len(chunk)
        self._received += chunk

    def whole(self) -> bytes:
        """Once."""
        whole, self._received = bytes(self._received), bytearray()
        return whole

    def leave(self) -> None:
        """Once or again."""
        if not self._has_left:
            self._has_left = True
            self._room.leave(self.size_bytes, self._caller)


async def _read(receive: Receive, body: _Body, limit: int, refusal: CraftError) -> None:
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise CraftError("UNDECODABLE", "the caller went away before the body was whole")
                chunk = message.get("body", b"")
                if body.size_bytes + len(chunk) > limit:
                    raise refusal
                body.add(chunk)
                if not message.get("more_body", False):
                    return
    except TimeoutError as exc:
        raise CraftError("UNDECODABLE", f"the body did not come within {_TIMEOUT_S:g} s", "send it again") from exc


def _check_form(headers: Headers, limit: int) -> None:
    if headers.get("content-encoding", "identity") != "identity":
        raise CraftError("UNDECODABLE", "content-encoding: compressed bodies are not taken", "send it as it is")
    if _declared_bytes(headers) > limit:
        raise _too_big(limit)


def _as_json(scope: Scope) -> Scope:
    """Whatever a caller calls its body: curl calls it a form, others say nothing. Raises UNDECODABLE."""
    kind = Headers(scope=scope).get("content-type", "").partition(";")[0].strip().lower()
    if kind.startswith("multipart/"):
        raise CraftError("UNDECODABLE", f"the body is {kind}, and this route takes JSON", "send one JSON object")
    others = [(name, value) for name, value in scope["headers"] if name != b"content-type"]
    return {**scope, "headers": [*others, (b"content-type", b"application/json")]}


def _declared_bytes(headers: Headers) -> int:
    length = headers.get("content-length", "0")
    return int(length[:16]) if length.isascii() and length.isdigit() else 0


def _too_big(limit: int) -> CraftError:
    return CraftError("MESSAGE_TOO_BIG", f"the body is over the limit of {limit} bytes", "send less")


def _keyless(limit: int) -> CraftError:
    message = f"a body of more than {limit} bytes is read only where a header has the key"
    return CraftError("UNAUTHENTICATED", message, "send the key as X-API-Key or Authorization")


def _nothing() -> None:
    return


def forgotten(scope: Scope) -> None:
    """A large body, read as a stream, takes no room any more: whoever read it keeps nothing of it."""
    scope.get(_FORGET, _nothing)()


def _replay(bodies: list[bytes], receive: Receive, on_read: Callable[[], None]) -> Callable[[], Awaitable[Message]]:
    """The body once, then whatever comes after it: the end of the connection."""

    async def replayed() -> Message:
        if not bodies:
            return await receive()
        on_read()
        return {"type": "http.request", "body": bodies.pop(), "more_body": False}

    return replayed
