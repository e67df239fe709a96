"""What every client knows of its connection to a daemon: when it is TLS, and what an error on it means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc

from craft_protos.addresses import is_loopback
from craft_protos.reasons import REASONS, CraftError

_MAX_MESSAGE_BYTES = 64 * 1024 * 1024
# A try to connect may last as long: a call's own deadline comes first, and says that the daemon is silent, where
# gRPC's usual 20 s would end in "unreachable", and in another try.
_CONNECT_MS = 120_000


def options(address: str) -> list[tuple[str, int]]:
    """The channel's settings."""
    return [
        ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
        ("grpc.enable_http_proxy", int(not is_local(address))),
        ("grpc.min_reconnect_backoff_ms", _CONNECT_MS),
    ]


def credentials(address: str, ca_file: str) -> grpc.ChannelCredentials | None:
    """TLS, unless the daemon is on this machine and no CA is named. Raises CONFIG_INVALID."""
    if address.startswith("unix:") or (is_local(address) and not ca_file):
        return None
    try:
        roots = Path(ca_file).read_bytes() if ca_file else None
    except OSError as error:
        message = f"CRAFT_CA: {ca_file} cannot be read: {error.strerror}"
        raise CraftError("CONFIG_INVALID", message, "point CRAFT_CA at a PEM file") from error
    return grpc.ssl_channel_credentials(roots)


def is_local(address: str) -> bool:
    """A unix socket or the loopback device: no TLS there, unless a CA is named."""
    return address.startswith("unix:") or is_loopback(address.rpartition(":")[0])


# What grpc itself says, when no daemon of ours wrote the error.
_BY_CODE = {
    "UNAVAILABLE": "DAEMON_UNREACHABLE",
    "DEADLINE_EXCEEDED": "DAEMON_SILENT",
    "UNIMPLEMENTED": "UNIMPLEMENTED",
    "UNAUTHENTICATED": "UNAUTHENTICATED",
    "PERMISSION_DENIED": "NOT_ALLOWED",
    "RESOURCE_EXHAUSTED": "MESSAGE_TOO_BIG",
    "CANCELLED": "DAEMON_UNREACHABLE",  # the connection's end; of a job's, the daemon tells the reason
    "INVALID_ARGUMENT": "INVALID_FIELD",
    "NOT_FOUND": "NO_INPUT",
}


def ours(error: grpc.RpcError, address: str) -> CraftError:
    """The CraftError behind an RpcError."""
    call: Any = error  # grpc.Call or grpc.aio.AioRpcError: both have code, details and trailing_metadata
    told = _told(call)
    if told:
        return told
    code, details = call.code().name, call.details() or "no details"
    reason = _BY_CODE.get(code, "INTERNAL")
    if reason == "DAEMON_SILENT":
        return silent(address)
    if reason == "DAEMON_UNREACHABLE":
        message = f"the daemon at {address} does not answer"
        return CraftError(reason, message, "see `craft daemon status` and `craft daemon logs`")
    return CraftError(reason, f"{REASONS[reason].meaning}: {details}", "see `craft daemon logs`")


def silent(address: str) -> CraftError:
    """DAEMON_SILENT: it is there, and was given its time."""
    local = address.startswith("unix:")
    hint = "it was stopped, or hangs: craft daemon restart" if local else "it hangs, or the network is cut; try again"
    return CraftError("DAEMON_SILENT", f"the daemon at {address} did not answer in time", hint)


def _told(error: Any) -> CraftError | None:
    """What the daemon wrote into google.rpc.Status; None where it wrote nothing that we know."""
    from google.rpc import error_details_pb2
    from grpc_status import rpc_status

    try:
        status = rpc_status.from_call(error)
    except ValueError:  # its parts contradict each other: something between the daemon and here wrote it
        return None
    if status is None:
        return None
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    retry, aid = error_details_pb2.RetryInfo(), error_details_pb2.Help()
    for detail in status.details:
        for message in (info, bad, retry, aid):
            if detail.Is(message.DESCRIPTOR):
                detail.Unpack(message)
    if info.reason not in REASONS:
        return None
    field = bad.field_violations[0].field if bad.field_violations else ""
    hint = info.metadata.get("hint", "") or (aid.links[0].description if aid.links else "")
    wait_s = retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
    if wait_s and not hint:
        hint = f"try again in {wait_s:.0f} s"
    return CraftError(info.reason, status.message, hint, field=field, retry_after_s=wait_s)
