"""The health service; the library's own leaves List out."""

from __future__ import annotations

from typing import Any

from grpc_health.v1 import health, health_pb2

_messages: Any = health_pb2  # whose published types are of an older version


class Health(health.aio.HealthServicer):
    async def List(self, _: Any, context: Any) -> Any:
        """There is one thing that serves: the daemon."""
        whole = await self.Check(health_pb2.HealthCheckRequest(), context)
        return _messages.HealthListResponse(statuses={"": whole})
