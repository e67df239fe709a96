"""Stays connected to the front: one line after the other, each of which passes on what both ends say."""

from __future__ import annotations

import asyncio
import logging
import random

from craft_protos.frames import BadFrame
from craft_protos.reasons import CraftError
from craft_protos.remote_pb2 import FromRemote, Greeting, ToRemote, Want
from craft_protos.version import __version__

from craftd.joining.host import Host
from craftd.joining.identity import Identity, connect, error_of
from craftd.workers.remote import line as lines
from craftd.workers.remote.line import Line, checked_piece, required_sha256

_log = logging.getLogger("craft.fleet")
_SHORTEST_WAIT_S, _LONGEST_WAIT_S = 0.25, 30.0
_GREETING_S = 20.0
_RENEWAL_EVERY_S = 600.0
_MOST_WANTS = 64


class Agent:
    """`away_s`: a process that the front has not asked for so long is ended; negative: never."""

    def __init__(self, address: str, identity: Identity, host: Host, away_s: float) -> None:
        self._address = address
        self._identity = identity
        self._host = host
        self._away_s = away_s

    async def run(self) -> None:
        """Until it is cancelled. Raises WORKER_REFUSED."""
        wait_s = _SHORTEST_WAIT_S
        try:
            while True:
                try:
                    line, keepalive_s = await self._greeted()
                except CraftError as exc:
                    if exc.reason == "WORKER_REFUSED":
                        raise
                    _log.warning("not connected", extra={"why": exc.message, "again_in_s": round(wait_s, 2)})
                else:
                    wait_s = _SHORTEST_WAIT_S
                    await self._serve(line, keepalive_s)
                    _log.warning("the line is gone", extra={"why": line.closed, "again_in_s": wait_s})
                await self._wait(wait_s)
                wait_s = min(_LONGEST_WAIT_S, wait_s * 2)
        finally:
            await self._host.stop()

    async def _wait(self, wait_s: float) -> None:
        """Some of it by chance: a front that comes back is not met by all its workers at once."""
        await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))

    async def _greeted(self) -> tuple[Line[ToRemote], float]:
        """A line on which each knows the other. Raises DAEMON_UNREACHABLE, WORKER_REFUSED."""
        if self._identity.is_over:
            message = "the certificate is over: this worker was away too long"
            raise CraftError(
                "WORKER_REFUSED", message, "`craft fleet rm` and `craft fleet invite` there, then join anew"
            )
        line = await connect(self._address, self._identity.context())
        line.send(FromRemote(greeting=Greeting(version=__version__, frames=lines.VERSION)))
        try:
            async with asyncio.timeout(_GREETING_S):
                told = await line.receive()
            if told is None:
                raise CraftError("DAEMON_UNREACHABLE", f"{self._address}: {line.closed}", "it is tried again")
            if told.WhichOneof("frame") == "refused":
                raise error_of(told.refused)
            if told.WhichOneof("frame") != "greeting":
                raise BadFrame("no greeting")
        except (TimeoutError, BadFrame) as exc:
            line.close("no greeting")
            raise CraftError("DAEMON_UNREACHABLE", f"{self._address}: no greeting", "it is tried again") from exc
        except BaseException:
            line.close("refused")
            raise
        return line, min(3600.0, max(1.0, told.greeting.keepalive_s))

    async def _serve(self, line: Line[ToRemote], keepalive_s: float) -> None:
        """One line, until it ends."""
        _log.info("connected", extra={"to": self._address, "as": self._identity.name})
        wants: asyncio.Queue[Want] = asyncio.Queue(_MOST_WANTS)
        others = [
            asyncio.create_task(line.keep(keepalive_s), name="line"),
            asyncio.create_task(self._renew(line), name="certificate"),
            asyncio.create_task(self._serve_files(line, wants), name="files"),
        ]
        self._host.attach(line)
        try:
            while (frame := await line.receive()) is not None:
                await self._handle(frame, wants)
        except BadFrame as exc:
            line.close(f"the daemon sent {exc}")
        finally:
            for task in others:
                task.cancel()
            line.close("it has ended")
            self._host.detach(line.closed, self._away_s)

    async def _handle(self, frame: ToRemote, wants: asyncio.Queue[Want]) -> None:
        """Raises BadFrame."""
        match frame.WhichOneof("frame"):
            case "alive":
                pass
            case "worker":
                self._host.give(frame.worker, frame.life)
            case "start":
                await self._host.begin(frame.life)
            case "kill":
                self._host.kill()
            case "piece":
                self._host.pulls.receive(checked_piece(frame.piece))
            case "want":
                required_sha256(frame.want.sha256)
                await wants.put(frame.want)
            case "discard":
                self._host.discard(frame.discard.sha256)
            case "certificate":
                self._identity.keep(frame.certificate)
                _log.info("certificate renewed")
            case kind:
                raise BadFrame(f"{kind or 'an empty frame'} where that cannot be")

    async def _renew(self, line: Line[ToRemote]) -> None:
        """In good time, and again until there is a new one."""
        while True:
            if self._identity.is_due:
                line.send(FromRemote(renew=self._identity.renewal()))
            await asyncio.sleep(_RENEWAL_EVERY_S)

    async def _serve_files(self, line: Line[ToRemote], wants: asyncio.Queue[Want]) -> None:
        while True:
            await line.send_in_turn(FromRemote(piece=await self._host.serve(await wants.get())))
