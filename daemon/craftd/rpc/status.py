"""CraftError -> google.rpc.Status: the reason, the field at fault, when to try again."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate

import grpc
from craft_protos.reasons import CraftError
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

DOMAIN = "craft"
_DETAILS_KEY = "grpc-status-details-bin"
_LARGEST_TEXT = 1200  # bytes on the wire, where all metadata together must stay below 8 KiB
_LONGEST_FIELD = 100  # characters


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
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=error.field[:_LONGEST_FIELD], description=message_of(error)
        )
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
    """As much of it as has room; what isn't Unicode (a file's name may be anything) becomes question marks."""
    text = text[: _LARGEST_TEXT + 1].encode("utf-8", "replace").decode()
    costs = list(accumulate(map(_wire_bytes, text)))
    if not costs or costs[-1] <= _LARGEST_TEXT:
        return text
    return text[: bisect_right(costs, _LARGEST_TEXT - _wire_bytes("…"))] + "…"


def _wire_bytes(character: str) -> int:
    """gRPC sends a status' message percent-encoded."""
    return 1 if " " <= character <= "~" and character != "%" else 3 * len(character.encode())
