"""Where agents that speak the Model Context Protocol call; there is no such route unless http.mcp says so."""

from __future__ import annotations

from fastapi import APIRouter, Response

from craftd.http.callers import WhoByHeaders
from craftd.http.errors import MCP, responses
from craftd.http.services import HttpServices

_SESSION_ENDED = {"description": "The session is no more; what its calls were drawing is cancelled."}


def make_router(services: HttpServices) -> APIRouter:
    router = APIRouter(tags=["Agents"])
    if not services.settings.http.mcp:
        return router
    agents = services.agents

    @router.post(MCP, response_class=Response, responses=responses("RATE_LIMITED"))
    async def call(caller: WhoByHeaders) -> Response:
        """A message of the Model Context Protocol's streamable HTTP, from an agent with a key.

        What is wrong with a tool's call is said in its result, as the protocol has it.
        """
        return agents.answer(caller)

    @router.delete(MCP, response_class=Response, responses={200: _SESSION_ENDED})
    async def end_session(caller: WhoByHeaders) -> Response:
        """End the session that the header Mcp-Session-Id names, of the key that opened it."""
        return agents.answer(caller)

    return router
