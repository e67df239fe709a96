"""A connection on which no request comes is closed: left alone, uvicorn waits for the first one for ever."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol


class Connection(H11Protocol):
    """Headers have `wait_s` to come in, from the connection or from their first byte on.

    Beyond `most` connections, the one that has waited longest makes way.
    """

    wait_s = 20.0
    most = 600  # with uvicorn's own limit above, and the usual 1024 open files above that

    _deadline: asyncio.TimerHandle | None = None
    _idle_since = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait()
        if len(self.connections) > self.most:
            self._close_longest_idle()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
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

    def _close_longest_idle(self) -> None:
        others = [one for one in self.connections if isinstance(one, Connection) and one is not self]
        if idle := [one for one in others if one._may_go]:
            min(idle, key=lambda one: one._idle_since).transport.close()
