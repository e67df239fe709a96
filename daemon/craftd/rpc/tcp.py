"""The gRPC face's TCP side: plain on the loopback device, over TLS anywhere else."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
from craft_protos.addresses import is_loopback
from craft_protos.reasons import CraftError
from craft_protos.settings import DaemonSettings

from craftd.certificates import Certificate, Pair


@dataclass(frozen=True)
class Tcp:
    """Where to listen. Without a certificate: plain."""

    host: str
    port: int
    certificate: Certificate | None = None

    def bind(self, server: grpc.aio.Server) -> str:
        """Listen there; the address with the port that it got. Raises CONFIG_INVALID."""
        asked = f"{self.host}:{self.port}"
        try:
            return f"{self.host}:{self._add_to(server)(asked)}"
        except RuntimeError as exc:
            raise _bad(f"{asked}: {self._obstacle()}", "choose another: HOST:PORT") from exc

    def _add_to(self, server: grpc.aio.Server) -> Callable[[str], int]:
        certificate = self.certificate
        if certificate is None:
            return server.add_insecure_port

        def renewed() -> Any:
            """Before each handshake, on a thread of gRPC's."""
            pair = certificate.renewed()
            return _configuration(pair) if pair else None

        credentials = grpc.dynamic_ssl_server_credentials(_configuration(certificate.load()), renewed)
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
        certificate = Certificate("daemon", settings.tls_cert, settings.tls_key)
        certificate.load()
        return Tcp(host, int(port), certificate)
    if not is_loopback(host):
        message = f"{settings.listen} is open to other machines, and there is no TLS"
        raise _bad(message, "set daemon.tls_cert and daemon.tls_key, or listen at 127.0.0.1")
    return Tcp(host, int(port))


def _configuration(pair: Pair) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(pair.private_key, pair.certificate)])


def _bad(why: str, hint: str) -> CraftError:
    return CraftError("CONFIG_INVALID", f"daemon.listen: {why}", hint)
