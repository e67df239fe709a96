"""Server reflection, imported at the first call: almost nobody asks, and start-up is dear."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import grpc

_SERVICES = (
    *("craft.v1.Jobs", "craft.v1.Images", "craft.v1.Models", "craft.v1.Loras", "craft.v1.Daemon"),
    "grpc.health.v1.Health",
)
_PREFIX = "/grpc.reflection.v1alpha.ServerReflection/"


class LazyReflection(grpc.GenericRpcHandler):
    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        return self._handler if handler_call_details.method.startswith(_PREFIX) else None

    @cached_property
    def _handler(self) -> grpc.RpcMethodHandler[Any, Any]:
        from grpc_reflection.v1alpha import reflection, reflection_pb2

        servicer = reflection.aio.ReflectionServicer((*_SERVICES, reflection.SERVICE_NAME))
        return grpc.stream_stream_rpc_method_handler(
            servicer.ServerReflectionInfo,
            reflection_pb2.ServerReflectionRequest.FromString,
            reflection_pb2.ServerReflectionResponse.SerializeToString,
        )
