"""Agents' sessions: those of one key's owner are together, apart from others', and each is its key's alone."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from craftd.http.mcp.server import CALLER, make_server
from craftd.http.services import HttpServices
from craftd.keys.caller import Caller, Role
from craftd.scheduler.quota import draining

_MOST_OF_ONE = 64  # sessions of an owner: beyond them the next is refused until one has ended
_IDLE_S = 30 * 60.0  # in which nothing is asked in a session
_MOST_BYTES = 1 << 30  # the guards have counted already


class Sessions:
    """`stop`: once the server answers nobody any more."""

    def __init__(self, services: HttpServices) -> None:
        logging.getLogger("mcp").setLevel(logging.ERROR)  # what it says besides are strangers' mistakes
        self._server = make_server(services)
        self._of_owners: dict[str, _Own] = {}
        self._is_over = asyncio.Event()

    def answer(self, caller: Caller) -> Response:
        """What answers the request of that caller."""
        return _Exchange(self, caller)

    async def of(self, owner: str) -> StreamableHTTPSessionManager:
        """Raises DRAINING."""
        if self._is_over.is_set():
            raise draining()
        own = self._of_owners.get(owner)
        if own is None:
            own = self._of_owners[owner] = _Own(self._new_manager(), self._is_over)
        await own.is_running.wait()
        return own.manager

    async def stop(self) -> None:
        """End all sessions."""
        self._is_over.set()
        if running := [own.running for own in self._of_owners.values()]:
            await asyncio.wait(running)

    def _new_manager(self) -> StreamableHTTPSessionManager:
        return StreamableHTTPSessionManager(
            self._server,
            session_idle_timeout=_IDLE_S,
            max_sessions=_MOST_OF_ONE,
            max_request_body_size=_MOST_BYTES,
        )


class _Own:
    """One owner's, from the first request until all is over."""

    def __init__(self, manager: StreamableHTTPSessionManager, is_over: asyncio.Event) -> None:
        self.manager = manager
        self.is_running = asyncio.Event()
        self.running = asyncio.create_task(self._run(is_over), name="an owner's agents")

    async def _run(self, is_over: asyncio.Event) -> None:
        async with self.manager.run():
            self.is_running.set()
            await is_over.wait()


class _Exchange(Response):
    """One request's answer, which the protocol's own package writes."""

    def __init__(self, sessions: Sessions, caller: Caller) -> None:
        super().__init__()
        self._sessions = sessions
        self._caller = caller

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An admin's agent sees what is its own, as others' do: it reads words of strangers, and may heed them.

        The package compares `user` with that of the request that opened the session.
        """
        caller = replace(self._caller, role=Role.USER)
        key = AuthenticatedUser(AccessToken(token="", client_id=caller.key_id, scopes=[]))
        manager = await self._sessions.of(caller.owner)
        await manager.handle_request({**scope, "user": key, CALLER: caller}, receive, send)
