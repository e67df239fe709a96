"""Server-sent events."""

from __future__ import annotations

import json
from collections.abc import Mapping

MEDIA_TYPE = "text/event-stream"
SCHEMA: dict[str, object] = {  # of one event
    "type": "object",
    "properties": {"event": {"type": "string"}, "data": {"type": "string", "contentMediaType": "application/json"}},
    "required": ["data"],
}
HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}


def event(name: str, data: Mapping[str, object]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()
