"""The worker port: workers on other machines connect to it, join by an invitation, and are workers of the pool."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path

from craft_protos.frames import BadFrame
from craft_protos.reasons import CraftError
from craft_protos.remote_pb2 import Authority as AuthorityFrame
from craft_protos.remote_pb2 import Certificate, FromRemote, Greeting, Join, Refused, ToRemote
from craft_protos.settings import WorkerSettings
from craft_protos.version import __version__

from craftd.workers.handle import WorkerHandle
from craftd.workers.pool import WorkerPool
from craftd.workers.remote import line as lines
from craftd.workers.remote.certificates import Authority, is_over, serial_of
from craftd.workers.remote.line import Line
from craftd.workers.remote.link import Link, Renew, Seat
from craftd.workers.remote.roster import Invitation, Roster

_log = logging.getLogger("craft.fleet")
_INTRODUCTION_S = 15.0
_HANDSHAKE_S = 10.0
_MOST_STRANGERS = 16  # connections without a certificate
_MOST_QUESTIONS = 4
_RENEW_FRONT_S = 24 * 3600.0


@dataclass(frozen=True)
class JoinLine:
    """What whoever starts the worker needs."""

    invitation: Invitation
    address: str
    fingerprint: str


class WorkerPort:
    """A face of the daemon. `folder`: of its certificates."""

    def __init__(
        self, settings: WorkerSettings, folder: Path, roster: Roster, pool: WorkerPool, keep_alive_s: float
    ) -> None:
        self._settings = settings
        self._folder = folder
        self._roster = roster
        self._pool = pool
        self._keep_alive_s = keep_alive_s
        self._seats: dict[str, tuple[Seat, WorkerHandle]] = {}
        self._strangers = 0
        self._server: asyncio.Server | None = None
        self._context: ssl.SSLContext | None = None
        self._authority: Authority | None = None
        self._talking: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Who has joined before has a place. Raises CONFIG_INVALID, OSError."""
        self._authority = await asyncio.to_thread(Authority.open, self._folder)
        self._context = await asyncio.to_thread(self._authority.front_context, self._folder)
        for name in await self._roster.names():
            self._add(name)

    async def start(self) -> None:
        """Listen. Raises CONFIG_INVALID where the address cannot be had."""
        host, _, port = self._settings.listen.rpartition(":")
        try:
            self._server = await asyncio.start_server(
                self._serve,
                host.strip("[]"),
                int(port),
                ssl=self._context,
                ssl_handshake_timeout=_HANDSHAKE_S,
                limit=1 << 20,
            )
        except OSError as exc:
            why = exc.strerror or str(exc)
            raise CraftError(
                "CONFIG_INVALID", f"worker.listen = {self._settings.listen}: {why}", "choose another address"
            ) from exc
        _log.info("workers may connect", extra={"address": self.address})

    async def run(self) -> None:
        """Give the port a new certificate every day."""
        while True:
            await asyncio.sleep(_RENEW_FRONT_S)
            assert self._authority is not None and self._context is not None
            await asyncio.to_thread(self._authority.renew_front, self._context, self._folder)

    async def stop(self, grace_s: float) -> None:
        """Close all lines; the workers come back to the next daemon."""
        if self._server is not None:
            self._server.close()
        for seat, _ in self._seats.values():
            if seat.link is not None:
                seat.link.line.close("the daemon stops")
        for task in list(self._talking):
            task.cancel()
        if self._talking:
            await asyncio.wait(self._talking, timeout=grace_s)

    @property
    def address(self) -> str:
        """HOST:PORT that workers are told; a wildcard is this machine's name."""
        host = self._settings.listen.rpartition(":")[0]
        port = self._server.sockets[0].getsockname()[1] if self._server is not None else 0
        return f"{socket.gethostname() if host in ('0.0.0.0', '[::]', '::') else host}:{port}"

    async def invite(self, name: str) -> JoinLine:
        """Raises INVALID_FIELD, NAME_TAKEN, RATE_LIMITED."""
        if any(worker.name == name for worker in self._pool.workers):
            raise CraftError("NAME_TAKEN", f"a worker is called {name!r} already", "choose another name")
        assert self._authority is not None
        return JoinLine(await self._roster.invite(name), self.address, self._authority.fingerprint)

    async def remove(self, name: str) -> None:
        """Its certificate is good for nothing from now on, and its jobs wait again. Raises UNKNOWN_WORKER."""
        if not await self._roster.remove(name):
            known = ", ".join(self._seats) or "none from another machine"
            raise CraftError("UNKNOWN_WORKER", f"no worker joined as {name[:64]!r}", f"there is {known}")
        if name not in self._seats:
            return
        seat, worker = self._seats.pop(name)
        removing = asyncio.create_task(self._pool.remove(worker, "it was removed from the fleet"))
        await asyncio.sleep(0)  # so that its end is one that is meant
        if seat.link is not None:
            seat.link.line.close("it was removed from the fleet")
        await removing
        _log.info("worker removed", extra={"worker": name})

    def _add(self, name: str) -> None:
        seat = Seat(name)
        worker = WorkerHandle(seat.connect, self._settings, self._keep_alive_s, name=name, elsewhere=seat)
        self._seats[name] = (seat, worker)
        self._pool.add(worker)

    # One connection

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._talking.add(task)
        line = Line(reader, writer, FromRemote, most_bytes=lines.SMALL_BYTES)
        try:
            await self._talk(line)
        except BadFrame as exc:
            line.close(f"it sent {exc}")
        except (TimeoutError, OSError) as exc:
            line.close(str(exc) or "it said nothing")
        except CraftError as exc:
            line.send(ToRemote(refused=Refused(reason=exc.reason, message=exc.message, hint=exc.hint)))
            await line.close_in_turn(f"refused: {exc.message}")
        except asyncio.CancelledError:
            line.close("the daemon stops")
        except Exception:  # the outermost frame of a connection: what comes in on it ends nothing but it
            _log.exception("a line failed", extra={"from": line.peer})
            line.close("a bug")
        finally:
            line.close("it has ended")
            self._talking.discard(task)
            _log.info("line closed", extra={"from": line.peer, "why": line.closed})

    async def _talk(self, line: Line[FromRemote]) -> None:
        """Raises BadFrame, TimeoutError, and what the other end is refused for."""
        certificate = line.peer_certificate
        async with asyncio.timeout(_INTRODUCTION_S):
            if certificate is None:
                await self._introduce(line)
                return
            name, serial = await self._recognise(certificate)
            await self._greet(line)
        await self._attend(line, name, serial)

    async def _introduce(self, line: Line[FromRemote]) -> None:
        """Who has no certificate may ask who this is, and join; not too many at once."""
        if self._strangers >= _MOST_STRANGERS:
            raise CraftError("RATE_LIMITED", "too many would join at once", "try again in a moment")
        self._strangers += 1
        try:
            await self._answer_questions(line)
        finally:
            self._strangers -= 1

    async def _answer_questions(self, line: Line[FromRemote]) -> None:
        assert self._authority is not None
        for _ in range(_MOST_QUESTIONS):
            frame = await line.receive()
            match None if frame is None else frame.WhichOneof("frame"):
                case "ask_authority":
                    line.send(ToRemote(authority=AuthorityFrame(certificate=self._authority.der)))
                case "join":
                    assert frame is not None
                    line.send(ToRemote(certificate=await self._join(frame.join, line.peer)))
                case None if frame is None:
                    return
                case kind:
                    raise BadFrame(f"{kind or 'an empty frame'} without a certificate")
        await line.close_in_turn("it has asked enough")

    async def _join(self, asked: Join, peer: str) -> Certificate:
        """Raises WORKER_REFUSED, BAD_DATA."""
        _require_same(asked.version, asked.frames)
        name = await self._roster.name_invited(asked.token)
        if name is None:
            raise _refused("the token is wrong, was used already, or is older than 15 minutes", "`craft fleet invite`")
        assert self._authority is not None
        issued = self._authority.issue(asked.request, name)
        if not await self._roster.join(asked.token, issued.serial):
            raise _refused("the token was used already", "`craft fleet invite`")
        if name not in self._seats:
            self._add(name)
        _log.info("worker joined", extra={"worker": name, "from": peer})
        return Certificate(certificate=issued.certificate, name=name)

    async def _recognise(self, certificate: bytes) -> tuple[str, str]:
        """The worker of a certificate that TLS has verified, and its serial number. Raises WORKER_REFUSED."""
        serial = serial_of(certificate)
        name = await self._roster.find(serial)
        if name is None or is_over(certificate):
            why = "its certificate is over" if name else "it was removed from the fleet"
            raise _refused(why, "`craft fleet invite NAME`, and join anew")
        return name, serial

    async def _greet(self, line: Line[FromRemote]) -> None:
        """Raises BadFrame, WORKER_REFUSED."""
        frame = await line.receive()
        if frame is None or frame.WhichOneof("frame") != "greeting":
            raise BadFrame("no greeting")
        _require_same(frame.greeting.version, frame.greeting.frames)
        keepalive_s = self._settings.line_timeout_s
        greeting = Greeting(version=__version__, frames=lines.VERSION, keepalive_s=keepalive_s)
        line.send(ToRemote(greeting=greeting))
        line.trust()

    async def _attend(self, line: Line[FromRemote], name: str, serial: str) -> None:
        """As long as the line lasts, the worker is there."""
        if name not in self._seats:
            raise _refused("it was removed from the fleet", "`craft fleet invite NAME`, and join anew")
        seat, worker = self._seats[name]
        if seat.link is not None:
            seat.link.line.close("it connected anew")
        link = seat.link = Link(line, self._renewal(name, serial))
        worker.note_reachable()
        self._pool.changed()
        _log.info("worker connected", extra={"worker": name, "from": line.peer})
        try:
            await link.run(self._settings.line_timeout_s)
        finally:
            if seat.link is link:
                seat.link = None
            self._pool.changed()
            _log.info("worker disconnected", extra={"worker": name, "why": line.closed})

    def _renewal(self, name: str, shown: str) -> Renew:
        async def renew(request: bytes) -> Certificate:
            assert self._authority is not None
            issued = self._authority.issue(request, name)
            await self._roster.renew(name, shown, issued.serial)
            _log.info("certificate renewed", extra={"worker": name})
            return Certificate(certificate=issued.certificate, name=name)

        return renew


def _require_same(version: str, frames: int) -> None:
    """Raises WORKER_REFUSED, with both named."""
    if (version, frames) != (__version__, lines.VERSION):
        theirs = f"craft {version[:32] or '?'} (frames {frames})"
        message = f"the worker is {theirs}, the daemon craft {__version__} (frames {lines.VERSION})"
        raise _refused(message, "install the daemon's version on the worker's machine")


def _refused(why: str, hint: str) -> CraftError:
    return CraftError("WORKER_REFUSED", why, hint)
