"""Services as gRPC handlers that tell clients nothing but CraftErrors.

grpc.aio sends an exception's raw text to the client, from handlers and deserializers
alike; here each is caught, logged and mapped.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, aclosing, nullcontext
from dataclasses import dataclass
from typing import Any, NoReturn

import grpc
import grpc.aio
from craft_protos.reasons import CraftError
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from craftd.keys.caller import Caller
from craftd.rpc import status
from craftd.rpc.auth import Context, Gate

_log = logging.getLogger("craft.rpc")


class _Undecodable:
    """Stands in for a message that could not be decoded."""


@dataclass(frozen=True)
class _Door:
    """The way into one method."""

    gate: Gate
    method: str  # SERVICE/METHOD
    takes_context: bool  # as the library's own services do, instead of the caller

    async def enter(self, context: Context) -> Any:
        """What the method gets beside its request. Raises what the gate does."""
        caller = await self.gate.enter(self.method, context)
        return context if self.takes_context else caller

    def counted(self, who: Any) -> AbstractContextManager[None]:
        return self.gate.counted(who) if isinstance(who, Caller) else nullcontext()

    def stay(self, who: Any) -> None:
        if isinstance(who, Caller):
            self.gate.stay(who)


def handlers_of(
    service: ServiceDescriptor, implementation: object, gate: Gate, *, takes_context: bool = False
) -> grpc.GenericRpcHandler:
    """Every method of `service`, served by `implementation`'s method of the same name to whom `gate` lets in."""
    handlers = {
        method.name: _handler(
            method,
            getattr(implementation, method.name),
            _Door(gate, f"{service.full_name}/{method.name}", takes_context),
        )
        for method in service.methods
    }
    return grpc.method_handlers_generic_handler(service.full_name, handlers)


def _handler(method: MethodDescriptor, serve: Callable[..., Any], door: _Door) -> grpc.RpcMethodHandler[Any, Any]:
    decode = _decoder(GetMessageClass(method.input_type))
    if method.client_streaming and not method.server_streaming:
        return grpc.stream_unary_rpc_method_handler(_guarded_upload(serve, door), decode, _encode)
    if method.client_streaming:
        return grpc.stream_stream_rpc_method_handler(_guarded_conversation(serve, door), decode, _encode)
    if method.server_streaming:
        # health's Watch is a coroutine that writes its messages itself
        guarded = _guarded_call if inspect.iscoroutinefunction(serve) else _guarded_stream
        return grpc.unary_stream_rpc_method_handler(guarded(serve, door), decode, _encode)
    return grpc.unary_unary_rpc_method_handler(_guarded_call(serve, door), decode, _encode)


def _decoder(kind: type[Message]) -> Callable[[bytes], Message | _Undecodable]:
    def decode(data: bytes) -> Message | _Undecodable:
        try:
            return kind.FromString(data)
        except (DecodeError, ValueError, RecursionError):
            return _Undecodable()

    return decode


def _encode(message: Message) -> bytes:
    return message.SerializeToString()


def _guarded_call(serve: Callable[[Any, Any], Awaitable[Message]], door: _Door) -> Callable[..., Awaitable[Message]]:
    async def call(request: Message | _Undecodable, context: Context) -> Message:
        try:
            who = await door.enter(context)
            return await serve(_decoded(request), who)
        except CraftError as exc:
            await _abort(context, exc)
        except grpc.aio.AbortError:
            raise
        except Exception as exc:  # the outermost frame of a request
            await _abort(context, _unexpected(exc))

    return call


def _guarded_upload(
    serve: Callable[[AsyncIterator[Any], Any], Awaitable[Message]], door: _Door
) -> Callable[..., Awaitable[Message]]:
    async def upload(requests: AsyncIterator[Message | _Undecodable], context: Context) -> Message:
        try:
            who = await door.enter(context)
            with door.counted(who):
                return await serve(_stayed(requests, door, who), who)
        except CraftError as exc:
            await _abort(context, exc)
        except grpc.aio.AbortError:
            raise
        except Exception as exc:  # the outermost frame of a request
            await _abort(context, _unexpected(exc))

    return upload


async def _stayed(requests: AsyncIterator[Message | _Undecodable], door: _Door, who: Any) -> AsyncIterator[Message]:
    """What comes, for as long as its sender may call."""
    async for request in requests:
        door.stay(who)
        yield _decoded(request)


def _guarded_stream(
    serve: Callable[[Any, Any], AsyncGenerator[Message]], door: _Door
) -> Callable[..., AsyncIterator[Message]]:
    async def stream(request: Any, context: Context) -> AsyncIterator[Message]:
        try:
            who = await door.enter(context)
            with door.counted(who):
                async with aclosing(serve(_decoded(request), who)) as messages:
                    async for message in messages:
                        door.stay(who)
                        yield message
        except CraftError as exc:
            await _abort(context, exc)
        except grpc.aio.AbortError:
            raise
        except Exception as exc:  # the outermost frame of a request
            await _abort(context, _unexpected(exc))

    return stream


def _guarded_conversation(
    serve: Callable[[AsyncIterator[Any], Any], AsyncGenerator[Message]], door: _Door
) -> Callable[..., AsyncIterator[Message]]:
    async def decoded(requests: AsyncIterator[Message | _Undecodable]) -> AsyncIterator[Message]:
        async for request in requests:
            yield _decoded(request)

    return _guarded_stream(lambda requests, who: serve(decoded(requests), who), door)


def _decoded(request: Any) -> Any:
    if isinstance(request, _Undecodable):
        raise CraftError("UNDECODABLE", "the message could not be decoded", "is the client of the same version?")
    return request


def _unexpected(exc: Exception) -> CraftError:
    """What the system refuses (no descriptors left, a folder that is gone) is no bug of craft's."""
    _log.exception("unexpected error in a request")
    if isinstance(exc, OSError):
        what = f"{exc.filename}: {exc.strerror}" if exc.filename else str(exc.strerror or exc)
        return CraftError("STORAGE_FAILED", f"the daemon's machine refused: {what}", "see `craft daemon logs`")
    return CraftError("INTERNAL", "a bug in craft: the request failed unexpectedly", "see `craft daemon logs`")


async def _abort(context: Context, error: CraftError) -> NoReturn:
    await context.abort(status.code_of(error), status.message_of(error), status.trailers_of(error))
    raise AssertionError("abort returns never")
