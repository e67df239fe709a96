"""Server reflection, imported at the first call: almost nobody asks, and start-up is dear."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Any

import grpc

from craftd.rpc.auth import Gate
from craftd.rpc.guard import handlers_of

SERVICE = "grpc.reflection.v1alpha.ServerReflection"


class LazyReflection(grpc.GenericRpcHandler):
    """`services`: the full names of those that are shown."""

    def __init__(self, services: Iterable[str], gate: Gate) -> None:
        self._services = (*services, SERVICE)
        self._gate = gate

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        if not handler_call_details.method.startswith(f"/{SERVICE}/"):
            return None
        return self._handlers.service(handler_call_details)

    @cached_property
    def _handlers(self) -> grpc.GenericRpcHandler:
        from grpc_reflection.v1alpha import reflection, reflection_pb2

        servicer = reflection.aio.ReflectionServicer(self._services)
        service: Any = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"]
        return handlers_of(service, servicer, self._gate, takes_context=True)
