"""Bodies that carry pictures: forms or JSON, read without being kept, so that none waits with its job."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any, TypeVar

from craft_protos.reasons import CraftError
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from craftd.http.lifting import parsed
from craftd.http.shape import check_shape

M = TypeVar("M", bound=BaseModel)


async def body_of(request: Request) -> bytes:
    """All of it, once."""
    return b"".join([chunk async for chunk in request.stream()])


async def json_of(body: bytes) -> dict[str, Any]:
    """Raises UNDECODABLE."""
    await check_shape(body)
    try:
        given = await asyncio.to_thread(parsed, body)
    except (ValueError, RecursionError) as exc:
        place = f": character {exc.pos}" if isinstance(exc, json.JSONDecodeError) else ""
        raise CraftError("UNDECODABLE", f"the body is no JSON{place}", "send one JSON object") from exc
    if not isinstance(given, dict):
        raise CraftError("UNDECODABLE", "the body is no JSON object", "send one JSON object")
    return given


def checked(kind: type[M], given: Mapping[str, Any]) -> M:
    """Raises RequestValidationError, as where FastAPI reads a body."""
    try:
        return kind.model_validate(given)
    except ValidationError as exc:
        raise RequestValidationError([{**one, "loc": ("body", *one["loc"])} for one in exc.errors()]) from exc


def described(
    content: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """For a route's documentation: a required body of one of these media types, each with its schema."""
    return {"requestBody": {"required": True, "content": {kind: {"schema": one} for kind, one in content.items()}}}


def schema_of(kind: type[BaseModel], **more: Mapping[str, Any]) -> dict[str, Any]:
    """A body's, with `more` properties; those without a default are required. What it refers to is the app's."""
    schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)
    schema["properties"] = {**more, **schema["properties"]}
    return schema
