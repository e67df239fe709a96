"""Who calls: the key in X-API-Key, Authorization (Bearer, or Basic's password) or the body's `token`.

Each route that needs a key takes `Who`; each such request is one of its key's rate.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import math
from typing import Annotated

from craft_protos.reasons import CraftError
from fastapi import Depends, Header, Request
from starlette.datastructures import Headers
from starlette.types import Scope

from craftd.http.drawing import Wish, wish_of
from craftd.http.guards import peer_of, set_header
from craftd.http.multipart import is_multipart, parse
from craftd.http.shape import check_shape
from craftd.keys.caller import ANYBODY, Caller
from craftd.keys.rates import Rate
from craftd.keys.service import KeyService

_WINDOW_S = 60
_LONGEST = 512  # characters of what may be a key


async def authenticate(request: Request) -> Caller:
    """Raises UNAUTHENTICATED, KEY_SUSPENDED, KEY_BANNED, RATE_LIMITED."""
    return await _counted(request, await _presented(request))


async def authenticate_by_headers(request: Request) -> Caller:
    """Where the body is another protocol's, and has no `token`. Raises as `authenticate`."""
    return await _counted(request, _in_headers(request.headers) or "")


async def authenticate_for_lists(request: Request) -> Caller:
    """Of names, which the configuration may open to all: who asks is nobody then. Raises as `authenticate`."""
    if request.app.state.services.settings.http.open_lists:
        return ANYBODY
    return await authenticate(request)


async def headers_of_drawing(
    idempotency_key: Annotated[
        str | None, Header(description="The same call again, with the same key, is the same job.")
    ] = None,
    craft_on_disconnect: Annotated[
        str | None,
        Header(description="What becomes of the job when the caller hangs up: `cancel` (the default) or `continue`."),
    ] = None,
) -> Wish:
    """Raises INVALID_FIELD."""
    return wish_of(idempotency_key, craft_on_disconnect)


async def _counted(request: Request, presented: str) -> Caller:
    keys: KeyService = request.app.state.services.keys
    caller = keys.authenticate(presented, peer_of(request.scope))
    rate = await keys.count(caller)
    _tell_rate(request, rate)
    rate.require_within()
    return caller


Lists = Annotated[Caller, Depends(authenticate_for_lists)]
Who = Annotated[Caller, Depends(authenticate)]
WhoByHeaders = Annotated[Caller, Depends(authenticate_by_headers)]
Wished = Annotated[Wish, Depends(headers_of_drawing)]


def shows_key(keys: KeyService, scope: Scope) -> str:
    """Whose key the headers have, before the body is read; "": nobody's. Raises as `KeyService.authenticate`."""
    caller = key_of(keys, scope)
    return "" if caller is None else caller.owner


def key_of(keys: KeyService, scope: Scope) -> Caller | None:
    """Who has the headers' key; None where they have none. Raises as `KeyService.authenticate`."""
    presented = _in_headers(Headers(scope=scope))
    return None if presented is None else keys.authenticate(presented, peer_of(scope))


async def _presented(request: Request) -> str:
    """What may be a key; "" where there is none."""
    given = _in_headers(request.headers)
    return await _token(request) if given is None else given


def _in_headers(headers: Headers) -> str | None:
    """What may be a key; None: the body may have one."""
    if given := headers.get("x-api-key"):
        return given[:_LONGEST]
    scheme, _, rest = headers.get("authorization", "").partition(" ")
    match scheme.lower():
        case "bearer":
            return rest.strip()[:_LONGEST]
        case "basic":
            return _password(rest.strip()[: 2 * _LONGEST])[:_LONGEST]
        case _:
            return None


def _password(encoded: str) -> str:
    try:
        return base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return ""


async def _token(request: Request) -> str:
    """Of JSON or a form; the guards have bounded it, but looked at its shape only where a route takes JSON."""
    body = await request.body()
    if b'"token"' not in body:
        return ""
    if is_multipart(kind := request.headers.get("content-type", "")):
        return _token_of_form(kind, body)
    try:
        await check_shape(body)
        token = (await request.json())["token"]
    except (CraftError, ValueError, TypeError, LookupError):
        return ""
    return token[:_LONGEST] if isinstance(token, str) else ""


def _token_of_form(content_type: str, body: bytes) -> str:
    """What is wrong with the form is said where it is read."""
    with contextlib.suppress(CraftError):
        return next((part.text for part in parse(content_type, body) if part.name == "token"), "")[:_LONGEST]
    return ""


def _tell_rate(request: Request, rate: Rate) -> None:
    if rate.limit:
        set_header(request.scope, "ratelimit-policy", f'"requests";q={rate.limit};w={_WINDOW_S}')
        reset_s = math.ceil(rate.reset_s)
        set_header(request.scope, "ratelimit", f'"requests";r={rate.remaining};t={reset_s}')
