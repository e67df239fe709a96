"""The gRPC face's TCP side: plain on the loopback device, over TLS anywhere else."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio
from craft_protos.addresses import is_loopback
from craft_protos.reasons import CraftError
from craft_protos.settings import DaemonSettings


@dataclass(frozen=True)
class Tcp:
    """Where to listen. Without a certificate: plain."""

    host: str
    port: int
    certificate: bytes = b""
    private_key: bytes = b""

    def bind(self, server: grpc.aio.Server) -> str:
        """Listen there; the address with the port that it got. Raises CONFIG_INVALID."""
        asked = f"{self.host}:{self.port}"
        try:
            return f"{self.host}:{self._add_to(server)(asked)}"
        except RuntimeError as exc:
            raise _bad("listen", f"{asked}: {self._obstacle()}", "choose another: HOST:PORT") from exc

    def _add_to(self, server: grpc.aio.Server) -> Callable[[str], int]:
        if not self.certificate:
            return server.add_insecure_port
        credentials = grpc.ssl_server_credentials([(self.private_key, self.certificate)])
        return lambda address: server.add_secure_port(address, credentials)

    def _obstacle(self) -> str:
        """gRPC does not say why it could not bind; the system does."""
        try:
            found = socket.getaddrinfo(self.host.strip("[]"), self.port, type=socket.SOCK_STREAM)
            with socket.socket(found[0][0], socket.SOCK_STREAM) as probe:
                probe.bind(found[0][4])
        except OSError as exc:
            return exc.strerror or str(exc)
        return "cannot be listened at"


def configured(settings: DaemonSettings) -> Tcp | None:
    """None: off. Raises CONFIG_INVALID, also where strangers could listen in."""
    if not settings.listen:
        return None
    host, _, port = settings.listen.rpartition(":")
    if settings.tls_cert or settings.tls_key:
        return Tcp(host, int(port), *_certificate(settings.tls_cert, settings.tls_key))
    if not is_loopback(host):
        message = f"{settings.listen} is open to other machines, and there is no TLS"
        raise _bad("listen", message, "set daemon.tls_cert and daemon.tls_key, or listen at 127.0.0.1")
    return Tcp(host, int(port))


def _certificate(cert: str, key: str) -> tuple[bytes, bytes]:
    """The two files, which fit each other."""
    for name, path in (("tls_cert", cert), ("tls_key", key)):
        if not path:
            raise _bad(name, "is not set", "TLS needs daemon.tls_cert and daemon.tls_key")
    try:
        _check_kept(Path(key))
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password=_no_password)
        return Path(cert).read_bytes(), Path(key).read_bytes()
    except ssl.SSLError as exc:
        raise _bad("tls_cert", f"{cert} and {key} are no pair of PEM files ({exc.reason or exc})") from exc
    except OSError as exc:
        raise _bad("tls_cert", f"{cert} or {key} cannot be read ({exc.strerror})") from exc


def _check_kept(key: Path) -> None:
    """Raises CONFIG_INVALID where others can read it; root may share its key with a group, as Debian's ssl-cert."""
    status = key.stat()
    shared = 0o037 if status.st_uid == 0 else 0o077
    if status.st_mode & shared:
        raise _bad(
            "tls_key", f"{key} can be read or written by others (mode {status.st_mode & 0o777:o})", f"chmod 600 {key}"
        )


def _no_password() -> str:
    """Nobody is there to type one."""
    return ""


def _bad(name: str, why: str, hint: str = "see `craft config list`") -> CraftError:
    return CraftError("CONFIG_INVALID", f"daemon.{name}: {why}", hint)
