"""The protocol's server: which tools there are, and a call of one."""

from __future__ import annotations

from typing import Any

from craft_protos.reasons import CraftError
from craft_protos.version import __version__
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    Tool,
    ToolAnnotations,
)
from pydantic import ValidationError

from craftd.http.errors import complaint_of, public, unexpected
from craftd.http.mcp import tools
from craftd.http.mcp.calls import Call
from craftd.http.services import HttpServices
from craftd.http.wording import AGENTS, spoken

CALLER = "craft.caller"  # in a request's scope

_INSTRUCTIONS = """craft draws pictures with diffusion models and LoRAs. `generate` draws from words, `edit` from a
picture, `upscale` enlarges one. Each gives the picture, and the address of its file, which the same key fetches. A
picture is named by the id that an earlier call gave, by the sha256 that POST /inputs gave, or is given itself in
base64; paths and URLs are not read. list_models, list_loras and list_samplers say what there is; plan says what a
request would cost, and does nothing."""
_READS = ToolAnnotations(read_only_hint=True, open_world_hint=False)
_DRAWS = ToolAnnotations(read_only_hint=False, destructive_hint=False, open_world_hint=False)


def make_server(services: HttpServices) -> Server[Any]:
    """One for all sessions: each request says who calls."""
    listed = ListToolsResult(tools=[_listed(one) for one in tools.TOOLS.values()])

    async def list_tools(_: ServerRequestContext[Any], __: PaginatedRequestParams | None) -> ListToolsResult:
        return listed

    async def call_tool(context: ServerRequestContext[Any], asked: CallToolRequestParams) -> CallToolResult:
        tool = tools.TOOLS.get(asked.name)
        if tool is None:
            known = ", ".join(tools.TOOLS)
            raise MCPError(INVALID_PARAMS, f"there is no tool {asked.name[:100]!r}; there are {known}")
        request = context.request
        assert request is not None
        call = Call(services, request.scope[CALLER], request, context.session.report_progress)
        return await _answer(tool, call, asked.arguments or {})

    return Server(
        "craft",
        version=__version__,
        instructions=_INSTRUCTIONS,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        get_tool_input_schema=lambda name: _schema(tools.TOOLS[name]) if name in tools.TOOLS else None,
    )


async def _answer(tool: tools.Tool, call: Call, given: dict[str, Any]) -> CallToolResult:
    """What is wrong is the tool's result, so that the agent reads it and mends its call."""
    try:
        return await tool.run(call, tool.arguments.model_validate(given))
    except ValidationError as exc:
        return _refusal(complaint_of([{**error, "loc": ("arguments", *error["loc"])} for error in exc.errors()]))
    except CraftError as exc:
        return _refusal(exc)
    except Exception:  # the outermost frame of a call
        return _refusal(unexpected())


def _refusal(error: CraftError) -> CallToolResult:
    hint = f"; {public(spoken(error.hint, AGENTS))}" if error.hint else ""
    text = f"{public(error.message)} ({error.reason}){hint}"
    return CallToolResult(content=[TextContent(type="text", text=text)], is_error=True)


def _listed(tool: tools.Tool) -> Tool:
    return Tool(
        name=tool.name,
        description=tool.run.__doc__,
        input_schema=_schema(tool),
        annotations=_READS if tool.reads else _DRAWS,
    )


def _schema(tool: tools.Tool) -> dict[str, Any]:
    return tool.arguments.model_json_schema()
