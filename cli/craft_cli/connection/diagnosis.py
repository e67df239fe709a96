"""Why nobody answers at CRAFT_HOST: grpc says the same of a closed port and of a certificate that it does not trust."""

from __future__ import annotations

import socket
import ssl

from craft_protos.addresses import is_loopback
from craft_protos.reasons import CraftError

_TIMEOUT_S = 3.0
_NOT_CRAFTD = "what listens there does not answer as craftd does"
_CHECK_HOST = "check CRAFT_HOST, which is HOST:PORT"


def unreachable(address: str, ca_file: str) -> CraftError:
    """DAEMON_UNREACHABLE with what is wrong, as far as one more connection can tell."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        return _error(address, "that is no HOST:PORT", _CHECK_HOST)
    host = host.strip("[]")
    try:
        _shake_hands(host, int(port), None)
    except (ssl.SSLError, ConnectionResetError, BrokenPipeError):
        return _without_tls(address, ca_file, is_loopback(host))
    except (OSError, OverflowError) as error:
        return _error(address, getattr(error, "strerror", None) or str(error), _CHECK_HOST)
    return _with_tls(address, host, int(port), ca_file)


def _without_tls(address: str, ca_file: str, is_local: bool) -> CraftError:
    if ca_file or not is_local:
        hint = "unset CRAFT_CA, or give the daemon its certificate" if ca_file else "give the daemon a certificate"
        return _error(address, "what listens there does not speak TLS", f"{hint}: see docs/keys.md")
    return _error(address, _NOT_CRAFTD, "give daemon.listen's port, not that of HTTP")


def _with_tls(address: str, host: str, port: int, ca_file: str) -> CraftError:
    hint = "point CRAFT_CA at a copy of the daemon's certificate, made for that name"
    if not ca_file and is_loopback(host):
        return _error(address, "it speaks TLS, and CRAFT_CA is not set", hint)
    try:
        trust = ssl.create_default_context(cafile=ca_file or None)
    except OSError:
        return CraftError("CONFIG_INVALID", f"CRAFT_CA: {ca_file} holds no certificate", "point CRAFT_CA at a PEM file")
    try:
        _shake_hands(host, port, trust)
    except ssl.SSLCertVerificationError as error:
        return _error(address, f"its certificate is not trusted: {error.verify_message}", hint)
    except OSError as error:
        return _error(address, str(error), _CHECK_HOST)
    return _error(address, _NOT_CRAFTD, _CHECK_HOST)


def _shake_hands(host: str, port: int, trust: ssl.SSLContext | None) -> None:
    """A TLS handshake; without `trust`, with whoever listens. Raises OSError, of which SSLError is one."""
    if trust is None:
        trust = ssl.create_default_context()
        trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
    trust.set_alpn_protocols(["h2"])
    with (
        socket.create_connection((host, port), _TIMEOUT_S) as plain,
        trust.wrap_socket(plain, server_hostname=host),
    ):
        pass


def _error(address: str, why: str, hint: str) -> CraftError:
    return CraftError("DAEMON_UNREACHABLE", f"no daemon answers at {address}: {why}", hint)
