"""The OpenAPI schema: what FastAPI knows, and what holds for every route because of where it stands."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from craftd.http.callers import authenticate, authenticate_by_headers, authenticate_for_lists
from craftd.http.errors import responses

# The guards before the app, and what may happen to anything.
_EVERYWHERE = ("UNDECODABLE", "FOREIGN_ORIGIN", "MESSAGE_TOO_BIG", "INVALID_FIELD", "INTERNAL", "DRAINING")
_KEYED = ("UNAUTHENTICATED", "KEY_SUSPENDED", "KEY_BANNED", "FOREIGN_ORIGIN", "RATE_LIMITED")
_AUTHENTICATING = (authenticate, authenticate_by_headers, authenticate_for_lists)
_SCHEMES = {
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "bearer": {"type": "http", "scheme": "bearer"},
    "basic": {"type": "http", "scheme": "basic", "description": "Any user name; the key is the password."},
}


def install(app: FastAPI) -> None:
    """Have the app describe itself so."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _schema(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def routes_of(app: FastAPI) -> list[APIRoute]:
    """All of them, for whoever must not forget one."""
    return [route for route in app.routes if isinstance(route, APIRoute)]


def needs_key(route: APIRoute) -> bool:
    return _depends(route.dependant)


def _depends(dependant: Dependant) -> bool:
    return dependant.call in _AUTHENTICATING or any(map(_depends, dependant.dependencies))


def _schema(app: FastAPI) -> dict[str, Any]:
    schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    schema.setdefault("components", {})["securitySchemes"] = _SCHEMES
    for route in routes_of(app):
        for method in (route.methods or ()) if route.include_in_schema else ():
            _complete(schema["paths"][route.path_format][method.lower()], is_keyed=needs_key(route))
    return schema


def _complete(operation: dict[str, Any], *, is_keyed: bool) -> None:
    if is_keyed:
        operation["security"] = [{name: []} for name in _SCHEMES]
    for status, entry in responses(*_EVERYWHERE, *(_KEYED if is_keyed else ())).items():
        if str(status) not in operation["responses"] or status == 422:  # FastAPI's own 422 is not what we answer
            operation["responses"][str(status)] = entry
