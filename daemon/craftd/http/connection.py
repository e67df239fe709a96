"""One caller's connection: how long it may say nothing, how long it may take nothing, and what its end means.

Left alone, uvicorn waits for the first request and for a reader for ever, and takes the end of what a caller sends for
the end of the caller.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from craftd.keys.failures import place_of

_FIRST_LOOK_S, _LOOK_EVERY_S = 0.01, 0.25  # whether a caller who sends no more is still there


class Connection(H11Protocol):
    """Headers have `wait_s` to come in, from the connection or from their first byte on.

    Beyond `most` connections, or `most_of_one` from one address, the one that has waited longest makes way. A caller
    who takes nothing of its answer for `unread_s` is cut off, and the answer's memory given back.
    """

    wait_s = 20.0
    unread_s = 20.0
    half_closed_s = 1.0  # for an answer to a caller who sends no more and cannot be asked whether it is there
    most = 600  # with uvicorn's own limit above, and the usual 1024 open files above that
    most_of_one = 400

    _deadline: asyncio.TimerHandle | None = None
    _idle_since = 0.0
    _reading: asyncio.TimerHandle | None = None
    _unread_bytes = 0
    _looking: asyncio.TimerHandle | None = None
    _half_closed_at: float | None = None
    _was_asked = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait()
        if len(self.connections) > min(self.most, self.most_of_one):
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        for timer in (self._reading, self._looking):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._is_answering or self.transport.is_closing():
            self._stop_waiting()
        elif self._deadline is None:
            self._wait()

    def on_response_complete(self) -> None:
        """From here on uvicorn's time for idle connections runs, until something comes."""
        self._stop_waiting()
        self._idle_since = self.loop.time()
        super().on_response_complete()
        self._await_reader()
        if self._half_closed_at is not None and not self._is_answering:
            self.transport.close()  # when all of it has been sent

    # A caller who takes nothing

    def pause_writing(self) -> None:
        """The caller takes its answer more slowly than it comes."""
        super().pause_writing()
        self._await_reader()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_awaiting_reader()

    def _await_reader(self) -> None:
        self._unread_bytes = self.transport.get_write_buffer_size()
        if self._reading is None and self._unread_bytes:
            self._reading = self.loop.call_later(self.unread_s, self._look_at_reader)

    def _look_at_reader(self) -> None:
        """Less is waiting than the last time, or the caller is cut off: a `close` would wait for it for ever."""
        self._reading, before = None, self._unread_bytes
        if self.transport.get_write_buffer_size() >= before > 0:
            self.transport.abort()
        else:
            self._await_reader()

    def _stop_awaiting_reader(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    # A caller who sends no more

    def eof_received(self) -> bool:  # type: ignore[override]
        """It may have gone, or wait for its answer: true keeps the connection open for that.

        Whoever has gone answers the next byte with a reset, so an interim response asks (RFC 9110, 15.2: a client
        that has no use for it passes over it).
        """
        if self.transport.get_extra_info("sslcontext") or not self._is_answering or self.cycle.more_body:
            return False  # TLS knows no caller who only listens
        self._half_closed_at = self.loop.time()
        if not self.cycle.response_started and self.conn.their_http_version == b"1.1":
            self._was_asked = True
            self.transport.write(self.conn.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
        self._look_again(_FIRST_LOOK_S)
        return True

    def _look_again(self, after_s: float) -> None:
        self._looking = self.loop.call_later(after_s, self._look_for_caller, after_s)

    def _look_for_caller(self, waited_s: float) -> None:
        if self._is_gone:
            self.transport.abort()
        elif not self.transport.is_closing():
            self._look_again(min(2 * waited_s, _LOOK_EVERY_S))

    @property
    def _is_gone(self) -> bool:
        """As far as the socket knows; where nobody was asked, time decides, unless it is still taking something."""
        connected: socket.socket = self.transport.get_extra_info("socket")
        if connected.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            return True
        if self._was_asked or self.transport.get_write_buffer_size():
            return False
        assert self._half_closed_at is not None
        return self.loop.time() - self._half_closed_at > self.half_closed_s

    # A caller who says nothing

    @property
    def _is_answering(self) -> bool:
        cycle = self.cycle
        return cycle is not None and not cycle.response_complete

    def _wait(self) -> None:
        self._idle_since = self.loop.time()
        self._deadline = self.loop.call_later(self.wait_s, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    @property
    def _may_go(self) -> bool:
        return not self._is_answering and not self.transport.is_closing()

    @property
    def _place(self) -> str:
        return place_of(self.client[0]) if self.client else ""

    def _make_room(self) -> None:
        """One of the address that has too many, else one of the address that has most."""
        known = [one for one in self.connections if isinstance(one, Connection)]
        held = Counter(one._place for one in known)
        if held[self._place] > self.most_of_one:
            self._close_longest_idle(known, self._place)
        elif len(known) > self.most:
            self._close_longest_idle(known, held.most_common(1)[0][0])

    def _close_longest_idle(self, known: list[Connection], place: str) -> None:
        idle = [one for one in known if one is not self and one._may_go]
        if found := [one for one in idle if one._place == place] or idle:
            min(found, key=lambda one: one._idle_since).transport.close()
