"""CraftError -> google.rpc.Status: the reason, the field at fault, when to try again."""

from __future__ import annotations

import grpc
from craft_protos.reasons import CraftError
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

DOMAIN = "craft"
_DETAILS_KEY = "grpc-status-details-bin"
_LONGEST_TEXT = 1000  # characters; all metadata together must stay below 8 KiB


def code_of(error: CraftError) -> grpc.StatusCode:
    return grpc.StatusCode[error.entry.grpc]


def message_of(error: CraftError) -> str:
    return _short(error.message)


def trailers_of(error: CraftError) -> tuple[tuple[str, bytes], ...]:
    """The trailing metadata that carries the details."""
    number: int = code_of(error).value[0]
    status = status_pb2.Status(
        code=number, message=message_of(error), details=[_packed(one) for one in _details(error)]
    )
    return ((_DETAILS_KEY, status.SerializeToString()),)


def _details(error: CraftError) -> list[Message]:
    metadata = {"hint": _short(error.hint)} if error.hint else {}
    details: list[Message] = [error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata)]
    if error.field:
        violation = error_details_pb2.BadRequest.FieldViolation(field=error.field, description=message_of(error))
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if error.retry_after_s:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(round(error.retry_after_s * 1000))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    return details


def _packed(message: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else text[: _LONGEST_TEXT - 1] + "…"
