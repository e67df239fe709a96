"""The app on its own port, in the daemon's event loop: uvicorn without its signal handlers, loops and logs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Iterator

import uvicorn
from anyio.lowlevel import checkpoint
from craft_protos.addresses import is_loopback
from craft_protos.reasons import CraftError
from craft_protos.settings import HttpSettings

from craftd.certificates import Certificate
from craftd.http.app import make_app
from craftd.http.connection import Connection
from craftd.http.services import HttpServices

_log = logging.getLogger("craft.http")
_MOST_CONNECTIONS = 800  # below the usual limit of 1024 open files; by then others have been closed and refused
_BACKLOG = 1024
_KEEP_ALIVE_S = 75  # of a connection on which nothing is asked


class HttpServer:
    """`bind`, `start`, `stop`, in this order, each once."""

    def __init__(self, services: HttpServices) -> None:
        self._services = services
        self._settings = services.settings.http
        self._certificate: Certificate | None = None
        self._listener: socket.socket | None = None
        self._server: _Server | None = None
        self._serving: asyncio.Task[None] | None = None

    def bind(self) -> str:
        """The URL. Raises CONFIG_INVALID where the address cannot be had, is open to all while there is no key, or the
        certificate will not do.
        """
        host, port = self._settings.host, self._settings.port
        if not is_loopback(host) and not self._services.keys.has_some:
            raise CraftError(
                "CONFIG_INVALID",
                f"http.listen: {self._settings.listen} is open to other machines, and there is no key",
                "make one first: craft keys create --owner NAME",
            )
        self._certificate = certificate_of(self._settings)
        if not is_loopback(host) and self._certificate is None and not self._settings.trusted_proxies:
            _log.warning("HTTP is plain, and open to other machines: keys can be read on the way; see http.tls_cert")
        if self._settings.mcp:
            _ = self._services.agents
        self._listener = _listen(host, port)
        host, port = self._listener.getsockname()[:2]
        scheme = "https" if self._certificate else "http"
        return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"

    async def start(self) -> None:
        assert self._listener is not None
        await checkpoint()  # loads anyio's backend now: the first streamed answer would hold the loop for that
        certificate = self._certificate
        config = uvicorn.Config(
            make_app(self._services, self._settings),
            http=Connection,
            ws="none",
            loop="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=bool(self._settings.trusted_proxies),
            forwarded_allow_ips=self._settings.trusted_proxies,
            limit_concurrency=_MOST_CONNECTIONS,
            timeout_keep_alive=_KEEP_ALIVE_S,
            ssl_context_factory=(lambda *_: _context_of(certificate)) if certificate else None,
        )
        logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
        self._server = _Server(config)
        self._serving = asyncio.create_task(self._server.serve([self._listener]), name="http")
        self._services.lag.start()

    async def stop(self, grace_s: float) -> None:
        """Take no more connections; what is being answered has `grace_s`."""
        if self._server is None or self._serving is None:
            if self._listener is not None:
                self._listener.close()
            return
        self._server.config.timeout_graceful_shutdown = max(1, round(grace_s))
        self._server.should_exit = True
        self._services.lag.stop()
        await asyncio.wait([self._serving])
        if self._settings.mcp:
            await self._services.agents.stop()


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """They are the daemon's."""
        yield


def certificate_of(settings: HttpSettings) -> Certificate | None:
    """None: plain. Raises CONFIG_INVALID where the files will not do."""
    if not settings.tls_cert and not settings.tls_key:
        return None
    certificate = Certificate("http", settings.tls_cert, settings.tls_key)
    certificate.load()
    return certificate


def _context_of(certificate: Certificate) -> ssl.SSLContext:
    """The context of the port. Each handshake looks whether the files were renewed."""
    now = [certificate.context()]

    def greet(connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        if certificate.renewed():
            now[0] = certificate.context()
        connection.context = now[0]

    first = certificate.context()
    first.sni_callback = greet  # it gets an SSLObject where there is no socket
    return first


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)  # without the protocol, asyncio sets no TCP_NODELAY
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
            listener.listen(_BACKLOG)
        except OSError:
            listener.close()
            raise
    except OSError as exc:
        raise CraftError(
            "CONFIG_INVALID", f"http.listen: {host}:{port}: {exc.strerror or exc}", "choose another: --http=HOST:PORT"
        ) from exc
    listener.setblocking(False)
    return listener
