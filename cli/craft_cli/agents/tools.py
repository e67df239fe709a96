"""The tools of `craft mcp`: what an agent may ask of craft, in the Model Context Protocol's terms.

They draw, look and cancel. None makes keys, deletes, pulls, registers or trains.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import anyio
import anyio.from_thread
import anyio.to_thread
from craft_protos import agents, samplers
from craft_protos.reasons import CraftError
from craft_protos.version import __version__
from mcp.server.mcpserver import Context, ListRoots, MCPServer, Resolve
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import CallToolResult, ContentBlock, ImageContent, ListRootsResult, TextContent, ToolAnnotations
from pydantic import Field

from craft_cli.agents import places
from craft_cli.agents.drawing import Call, Drawn
from craft_cli.connection.session import Session
from craft_cli.generate import drawing
from craft_cli.render import shapes

T = TypeVar("T")
_NOT_ASKED = ("self", "ctx", "roots")

_INSTRUCTIONS = """craft draws pictures on this machine, with diffusion models and LoRAs. `generate` draws from words,
`edit` from a picture, `upscale` enlarges one. Each gives the picture, and the path of its file. A picture is named by a
path below the client's roots, or by the id that an earlier call gave. list_models, list_loras and list_samplers say
what there is; plan says what a request would cost, and does nothing."""
_READS = ToolAnnotations(read_only_hint=True, open_world_hint=False)
_DRAWS = ToolAnnotations(read_only_hint=False, destructive_hint=False, open_world_hint=False)

Prompt = Annotated[str, Field(description=agents.PROMPT)]
Negative = Annotated[str, Field(description=agents.NEGATIVE)]
Model = Annotated[str, Field(description=agents.MODEL)]
Side = Annotated[int | None, Field(description=agents.SIDE)]
Steps = Annotated[int | None, Field(description=agents.STEPS)]
Guidance = Annotated[float | None, Field(description=agents.GUIDANCE)]
Seed = Annotated[int | None, Field(description=agents.SEED)]
Count = Annotated[int, Field(description=agents.COUNT)]
Sampler = Annotated[str, Field(description=agents.SAMPLER)]
Loras = Annotated[list[str] | None, Field(description=agents.LORAS)]
Job = Annotated[str, Field(description=agents.JOB)]
Picture = Annotated[str, Field(description="A path below the client's roots, or the id of a picture of craft's.")]


def _roots(ctx: Context) -> ListRootsResult | ListRoots:
    """The client is asked for its roots, if it says that it has some."""
    has_roots = ctx.client_capabilities is not None and ctx.client_capabilities.roots is not None
    return ListRoots() if has_roots else ListRootsResult(roots=[])


Roots = Annotated[ListRootsResult, Resolve(_roots)]


class Tools:
    """`folder`: where pictures are written; `roots`: what may be read beside what the client names."""

    def __init__(self, session: Session, folder: Path, roots: Sequence[Path] = ()) -> None:
        self._session = session
        self._folder = folder
        self._roots = [root.resolve() for root in roots]

    def server(self) -> MCPServer:
        server = MCPServer("craft", version=__version__, instructions=_INSTRUCTIONS)
        draws: list[Callable[..., Any]] = [self.generate, self.edit, self.upscale]
        tells: list[Callable[..., Any]] = [self.plan, self.list_models, self.list_loras, self.list_samplers]
        tells += [self.list_jobs, self.get_job]
        for tool in draws:
            server.add_tool(tool, annotations=_DRAWS)
        for tool in tells:
            server.add_tool(tool, annotations=_READS, structured_output=False)
        server.add_tool(self.cancel_job, annotations=_DRAWS, structured_output=False)
        return server

    async def generate(
        self,
        ctx: Context,
        prompt: Prompt,
        *,
        negative_prompt: Negative = "",
        model: Model = "",
        width: Side = None,
        height: Side = None,
        steps: Steps = None,
        guidance_scale: Guidance = None,
        seed: Seed = None,
        count: Count = 1,
        sampler: Sampler = "",
        loras: Loras = None,
    ) -> CallToolResult:
        """Draw pictures from words. Gives each picture, its file's path, its id and its seed."""
        return await self._draw(ctx, [], _asked(locals()))

    async def edit(
        self,
        ctx: Context,
        roots: Roots,
        prompt: Prompt,
        image: Picture,
        *,
        strength: Annotated[float | None, Field(description=agents.STRENGTH)] = None,
        mask: Annotated[str | None, Field(description=agents.MASK)] = None,
        refs: Annotated[list[str] | None, Field(description=agents.REFERENCES)] = None,
        negative_prompt: Negative = "",
        model: Model = "",
        steps: Steps = None,
        guidance_scale: Guidance = None,
        seed: Seed = None,
        count: Count = 1,
        sampler: Sampler = "",
        loras: Loras = None,
    ) -> CallToolResult:
        """Draw a picture that begins from another one: image-to-image, or inpainting with a mask."""
        return await self._draw(ctx, self._readable(roots), _asked(locals()))

    async def upscale(
        self,
        ctx: Context,
        roots: Roots,
        image: Picture,
        *,
        scale: Annotated[float | None, Field(description=agents.SCALE)] = None,
        upscaler: Annotated[str, Field(description=agents.UPSCALER)] = "",
    ) -> CallToolResult:
        """Enlarge a picture. Nothing is drawn."""
        wanted = {"prompt": "", "image": image, "strength": 0.0, "seed": 0}
        return await self._draw(ctx, self._readable(roots), wanted | {"upscale": {"model": upscaler, "scale": scale}})

    async def plan(
        self,
        prompt: Prompt,
        *,
        model: Model = "",
        width: Side = None,
        height: Side = None,
        steps: Steps = None,
        count: Count = 1,
        loras: Loras = None,
    ) -> dict[str, Any]:
        """Say what a request would be drawn with and cost: time, memory, how its LoRAs fit. Draws nothing."""
        asked = _asked(locals())
        return await _in_a_thread(lambda: Call(self._session, self._folder, self._roots).plan(asked))

    async def list_models(self) -> list[dict[str, Any]]:
        """List the models that can be drawn with."""
        return await self._ask(lambda: [shapes.model(one) for one in self._session.client.list_models()])

    async def list_loras(self, model: Annotated[str, Field(description=agents.FITTING)] = "") -> list[dict[str, Any]]:
        """List the LoRAs, with their trigger words and what they fit."""
        return await self._ask(lambda: [shapes.lora(one) for one in self._session.client.list_loras(model)])

    async def list_samplers(self) -> list[dict[str, Any]]:
        """List the samplers and the schedules that each goes with."""
        return [{"name": name, "schedules": list(samplers.schedules_of(name))} for name in samplers.SAMPLERS]

    async def list_jobs(
        self, limit: Annotated[int, Field(description=agents.LIMIT, ge=1, le=100)] = 20
    ) -> list[dict[str, Any]]:
        """List jobs, the newest first."""
        return await self._ask(lambda: [shapes.job(one) for one in self._session.client.list_jobs([], limit)])

    async def get_job(self, job: Job) -> dict[str, Any]:
        """Say how a job stands, and which pictures it made."""
        return await self._ask(lambda: shapes.job(self._session.client.get_job(job)))

    async def cancel_job(self, job: Job) -> dict[str, Any]:
        """Cancel a job that waits or runs; what it has made is kept."""
        return await _in_a_thread(lambda: shapes.job(self._session.client.cancel_job(job)))

    def _readable(self, told: ListRootsResult) -> list[Path]:
        named = (places.root_of(str(root.uri)) for root in told.roots)
        return [*self._roots, *(root for root in named if root is not None)]

    async def _draw(self, ctx: Context, roots: Sequence[Path], asked: dict[str, Any]) -> CallToolResult:
        call = Call(self._session, self._folder, roots)

        def tell(done: float, of: float, what: str) -> None:
            anyio.from_thread.run(ctx.report_progress, done, of, what)

        try:
            drawn = await _in_a_thread(lambda: call.draw(asked, tell))
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(_quietly(call.cancel))
            raise
        return _result(drawn)

    async def _ask(self, ask: Callable[[], T]) -> T:
        return await _in_a_thread(lambda: drawing.insist(self._session, lambda _client: ask()))


def _asked(given: dict[str, Any]) -> dict[str, Any]:
    """A tool's arguments as a batch's line has them."""
    return {name: value for name, value in given.items() if name not in _NOT_ASKED and value not in (None, "")}


def _result(drawn: Sequence[Drawn]) -> CallToolResult:
    content: list[ContentBlock] = []
    for one in drawn:
        content.append(ImageContent(type="image", data=one.shown, mime_type=one.media_type))
        content.append(
            TextContent(type="text", text=f"{one.told['path']} (id {one.told['id']}, seed {one.told['seed']})")
        )
    return CallToolResult(content=content, structured_content={"images": [one.told for one in drawn]})


async def _in_a_thread(work: Callable[[], T]) -> T:
    """Run `work`, which waits for the daemon, beside other calls. Craft's own errors become the tool's answer."""
    try:
        return await anyio.to_thread.run_sync(work, abandon_on_cancel=True)
    except CraftError as error:
        hint = f"; {error.hint}" if error.hint else ""
        raise ToolError(f"{error.message} ({error.reason}){hint}") from error


def _quietly(work: Callable[[], None]) -> Callable[[], None]:
    def run() -> None:
        try:
            work()
        except CraftError:
            return  # it has ended meanwhile

    return run
