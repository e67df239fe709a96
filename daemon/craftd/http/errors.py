"""CraftError -> what each contract's callers expect of an error.

    /v1                        {"error": {"message", "type", "param", "code"}}, as OpenAI has it
    VisionCraft's              the problem's fields and OpenAI's `error`, as application/json: what its packages read
    /image/create/lora         problem+json with "status": "error" and "message"
    everywhere else            RFC 9457 problem+json, its `code` the reason's name

Nothing here carries a trace, a path or an address.
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from craft_protos.reasons import REASONS, CraftError, invalid
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from craftd.http import wording
from craftd.http.guards import request_id_of
from craftd.http.targets import meant
from craftd.http.wording import Wording, spoken

_log = logging.getLogger("craft.http")
PROBLEM = "application/problem+json"
LORA_API = "/image/create/lora"
MCP = "/mcp"
_WITHOUT_V1 = {
    "/images/generations",
    "/images/edits",
    "/images/variations",
}  # of OpenAI, where the base URL lacks it
_VISIONCRAFTS = {
    *("/generate", "/generate-xl", "/image/generate", "/models", "/models-xl", "/samplers", "/samplers-xl"),
    *("/loras", "/loras-xl", "/image/models", "/image/samplers"),
}
_LONGEST = 1000  # characters of a message
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
# A path of two parts or more, so that "and/or" stays, down to its last part; our own routes are no secret.
_PATH = re.compile(r"(?<![\w.:/])(?!/(?:v1|sdapi|image)/)~?/[^\s/'\"`,;:]+/(?:[^\n/'\"`,;:]+/)*([^\s/'\"`,;:]*)")
_ADDRESS = re.compile(r"\s*(?:\bat )?\b0x[0-9a-fA-F]{5,}")


def install(app: FastAPI) -> None:
    """Have the app answer every error so."""
    app.add_exception_handler(CraftError, _on_craft_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)


def response_of(error: CraftError, scope: Scope) -> Response:
    """In the form of the route's contract."""
    status, path, headers = error.entry.http, str(scope.get("path", "")), {}
    if error.retry_after_s or status in (429, 503):
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after_s)))
    if status == 401:
        headers["www-authenticate"] = 'Bearer realm="craft", Basic realm="craft"'
        error = _with_carrier(error, path)
    if _is_openais(path):
        return _json({"error": openai_form(error)}, status, "application/json", headers)
    if _is_visioncrafts(path):
        both = {**_problem(error, scope, path), "error": openai_form(error, wording.VISIONCRAFT)}
        return _json(both, status, "application/json", headers)
    return _json(_problem(error, scope, path), status, PROBLEM, headers)


def _is_openais(path: str) -> bool:
    return path == "/v1" or path.startswith("/v1/") or path in _WITHOUT_V1


def _is_visioncrafts(path: str) -> bool:
    return path in _VISIONCRAFTS or path.startswith("/image/loras/")


def _wording(path: str) -> Wording:
    if _is_visioncrafts(path):
        return wording.VISIONCRAFT
    return wording.AUTOMATIC1111 if path.startswith("/sdapi/") else wording.OWN


def _with_carrier(error: CraftError, path: str) -> CraftError:
    """The hint says where this contract's callers put the key."""
    if _is_openais(path):
        carrier = "as Authorization: Bearer KEY, the api_key of OpenAI's packages"
    elif _is_visioncrafts(path):
        carrier = "as the body's token, or as Authorization: Bearer KEY"
    elif path == MCP:
        carrier = "as Authorization: Bearer KEY, or as X-API-Key: the agent's configuration has a place for headers"
    elif path.startswith("/sdapi/"):
        carrier = "as the password of Basic authentication, whatever the user, or as X-API-Key"
    else:
        carrier = "as X-API-Key"
    hint = error.hint.replace("in CRAFT_API_KEY", carrier)
    return CraftError(error.reason, error.message, hint, field=error.field)


def unexpected() -> CraftError:
    """For the log's reader, not for the caller."""
    _log.exception("unexpected error in a request")
    return CraftError("INTERNAL", "a bug in craft: the request failed unexpectedly", "see `craft daemon logs`")


def openai_form(error: CraftError, words: Wording = wording.OPENAI) -> dict[str, object]:
    """The object below "error"."""
    status = error.entry.http
    hint = spoken(error.hint, words)
    text = public(f"{error.message} ({hint})" if hint else error.message)
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"message": text, "type": kind, "param": public(error.field) or None, "code": error.reason}


def responses(*reasons: str) -> dict[int | str, dict[str, Any]]:
    """For a route's documentation: the statuses that these have."""
    entries: dict[int, list[str]] = {}
    for reason in reasons:
        entries.setdefault(REASONS[reason].http, []).append(f"{reason}: {REASONS[reason].meaning}")
    return {status: _documented("; ".join(found)) for status, found in sorted(entries.items())}


def _documented(description: str) -> dict[str, Any]:
    content = {media_type: {"schema": {"type": "object"}} for media_type in (PROBLEM, "application/json")}
    return {"description": description, "content": content}


async def _on_craft_error(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, CraftError)
    return response_of(exc, request.scope)


async def _on_invalid(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, RequestValidationError)
    return response_of(complaint_of(exc.errors()), request.scope)


async def _on_http(request: Request, exc: Exception) -> Response:
    """Starlette's own: no such route, no such method, a body that is no JSON."""
    assert isinstance(exc, HTTPException)
    if exc.status_code == 404:
        error = CraftError("UNKNOWN_ROUTE", "there is no such route", _meant(request))
    elif exc.status_code == 405:
        error = CraftError("WRONG_METHOD", f"the route does not take {request.method}", _meant(request))
    else:
        error = CraftError("UNDECODABLE", "the body could not be decoded", "send JSON in UTF-8")
    response = response_of(error, request.scope)
    response.headers.update(exc.headers or {})
    return response


def _meant(request: Request) -> str:
    return meant(request.url.path, (route.path for route in request.app.routes))


def complaint_of(errors: Sequence[Mapping[str, object]]) -> CraftError:
    """The first of pydantic's complaints, and how many there are; each one's place begins with that of the fields."""
    first = errors[0]
    loc = first["loc"]
    assert isinstance(loc, tuple)
    if first["type"] == "json_invalid":
        return CraftError("UNDECODABLE", f"the body is no JSON: character {loc[-1]}", "send one JSON object")
    field = ".".join(str(part) for part in loc[1:])[:100] or str(loc[0])
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    match first["type"]:
        case "missing":
            return invalid(field, f"is missing{more}")
        case "extra_forbidden":
            return invalid(field, f"is no field of this request{more}", "is it spelt right?")
        case _:
            message = str(first["msg"])
            return invalid(field, f"{message[:1].lower()}{message[1:]}{more}")


def _problem(error: CraftError, scope: Scope, path: str) -> dict[str, object]:
    problem: dict[str, object] = {
        "type": f"urn:craft:{error.reason}",
        "title": error.entry.meaning,
        "status": error.entry.http,
        "detail": public(error.message),
        "code": error.reason,
        "request_id": request_id_of(scope),
    }
    problem |= {"hint": public(spoken(error.hint, _wording(path)))} if error.hint else {}
    problem |= {"field": public(error.field)} if error.field else {}
    if path == LORA_API:  # its callers look at `status`
        problem |= {"status": "error", "message": problem["detail"]}
    return problem


def _json(what: Mapping[str, object], status: int, media_type: str, headers: Mapping[str, str]) -> Response:
    return Response(json.dumps(what), status, headers, media_type)


def public(text: str) -> str:
    """Without paths, addresses and what is no Unicode."""
    text = text.encode("utf-8", "replace").decode()[:_LONGEST]
    return _ADDRESS.sub("", _PATH.sub(r"\1", text))
