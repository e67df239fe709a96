"""Tells whoever started the daemon how it went: a pipe for `craft`, a datagram for systemd."""

from __future__ import annotations

import json
import logging
import os
import socket

from craft_protos.reasons import CraftError

_log = logging.getLogger("craft.daemon")
_PATIENCE_S = 1.0  # for a service manager that does not read


class ReadyPipe:
    """The inherited end of a pipe, or nothing. Says one line, then closes."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor
        if descriptor is not None:
            os.set_inheritable(descriptor, False)

    def ready(self, address: str) -> None:
        self._say({"ready": True, "address": address})

    def failed(self, error: CraftError) -> None:
        self._say({"error": {"reason": error.reason, "message": error.message, "hint": error.hint}})

    def _say(self, what: dict[str, object]) -> None:
        if self._descriptor is None:
            return
        descriptor, self._descriptor = self._descriptor, None
        try:
            os.write(descriptor, json.dumps(what).encode() + b"\n")
        except BrokenPipeError:
            pass  # who started us has gone; the daemon is there all the same
        finally:
            os.close(descriptor)


def notify(notify_socket: str, state: str) -> None:
    """sd_notify: `READY=1`, `STOPPING=1`. Nobody there: the daemon serves all the same."""
    if not notify_socket:
        return
    address = "\0" + notify_socket[1:] if notify_socket.startswith("@") else notify_socket
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.settimeout(_PATIENCE_S)
            sock.sendto(state.encode(), address)
    except OSError as exc:
        _log.warning("the service manager was not told", extra={"state": state, "socket": address, "why": str(exc)})
