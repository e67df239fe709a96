"""craft mcp, as an agent's client starts it: the package's own client, over stdin and stdout."""

from __future__ import annotations

import base64
import io
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from mcp import Client, StdioServerParameters
from mcp_types import CallToolResult, ImageContent, ListRootsResult, Root
from PIL import Image

from tests.home import CRAFT, HANG_S, Home

TOOLS = {
    *("generate", "edit", "upscale", "plan", "list_models", "list_loras", "list_samplers"),
    *("list_jobs", "get_job", "cancel_job"),
}


@pytest.fixture(scope="module")
def place() -> Iterator[Home]:
    made = Home()
    yield made
    made.remove()


@asynccontextmanager
async def _connected(place: Home, *options: str, mode: str = "auto", roots: bool = True) -> AsyncIterator[Client]:
    async def tell(_context: object) -> ListRootsResult:
        return ListRootsResult(roots=[Root(uri=place.work.resolve().as_uri())])  # type: ignore[arg-type]

    command, *arguments = [*CRAFT, "mcp", "--folder", str(_folder(place)), *options]
    server = StdioServerParameters(command=command, args=arguments, env=place.env, cwd=place.work)
    with anyio.fail_after(HANG_S):
        async with Client(server, list_roots_callback=tell if roots else None, mode=mode) as client:  # type: ignore[arg-type]
            yield client


def _folder(place: Home) -> Path:
    return place.root / "drawn"


def _picture(place: Home, name: str) -> Path:
    Image.new("RGB", (64, 64), "red").save(place.work / name)
    return place.work / name


def _refusal(result: CallToolResult) -> str:
    assert result.is_error
    return str(getattr(result.content[0], "text", ""))


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_it_draws_and_tells_how_far_it_is(place: Home, mode: str) -> None:
    heard: list[tuple[float, float | None]] = []

    async def hear(done: float, of: float | None, _words: str | None) -> None:
        heard.append((done, of))

    async with _connected(place, mode=mode) as client:
        assert {tool.name for tool in (await client.list_tools()).tools} == TOOLS, "no keys, no deleting, no pulling"
        asked = {"prompt": "a [slow] apple", "seed": 4, "count": 2, "steps": 4, "width": 64, "height": 64}
        result = await client.call_tool("generate", asked, progress_callback=hear)
    assert not result.is_error and result.structured_content is not None
    first, second = result.structured_content["images"]
    assert (first["seed"], second["seed"], first["width"]) == (4, 5, 64)
    pictures = [one for one in result.content if isinstance(one, ImageContent)]
    for told, shown in zip((first, second), pictures, strict=True):
        data = Path(told["path"]).read_bytes()  # noqa: ASYNC240 - nothing waits for it
        assert base64.b64decode(shown.data) == data and Image.open(io.BytesIO(data)).size == (64, 64)
        assert Path(told["path"]).parent == _folder(place)
    assert heard and all(of is not None and done <= of for done, of in heard)


async def test_pictures_are_read_below_the_clients_roots_alone(place: Home) -> None:
    inside = _picture(place, "inside.png")
    outside = place.root / "outside.png"
    outside.write_bytes(inside.read_bytes())
    (place.work / "link.png").symlink_to(outside)
    asked = {"prompt": "a pear", "steps": 2, "seed": 1}
    async with _connected(place) as client:
        drawn = await client.call_tool("edit", {**asked, "image": str(inside), "strength": 0.5})
        assert not drawn.is_error and drawn.structured_content is not None
        again = await client.call_tool("edit", {**asked, "image": drawn.structured_content["images"][0]["id"]})
        assert not again.is_error
        larger = await client.call_tool("upscale", {"image": str(inside), "upscaler": "lanczos", "scale": 2})
        assert larger.structured_content is not None and larger.structured_content["images"][0]["width"] == 128
        for name in (outside, place.work / "link.png", place.work / ".." / "outside.png", "/etc/passwd"):
            assert "outside the folders that may be read" in _refusal(
                await client.call_tool("edit", {**asked, "image": str(name)})
            )
        assert "outside the folders" in _refusal(
            await client.call_tool("edit", {**asked, "image": str(inside), "mask": str(outside)})
        )
        assert "outside the folders" in _refusal(
            await client.call_tool("edit", {**asked, "image": str(inside), "refs": [str(outside)]})
        )
    async with _connected(place, roots=False) as client:
        assert "named no roots" in _refusal(await client.call_tool("edit", {**asked, "image": str(inside)}))
    async with _connected(place, "--root", str(place.work), roots=False) as client:
        assert not (await client.call_tool("edit", {**asked, "image": str(inside)})).is_error


async def test_what_is_wrong_is_said_in_crafts_words(place: Home) -> None:
    async with _connected(place) as client:
        assert "UNKNOWN_MODEL" in _refusal(await client.call_tool("generate", {"prompt": "x", "model": "nope"}))
        assert "count" in _refusal(await client.call_tool("generate", {"prompt": "x", "count": 9}))
        assert "sampler" in _refusal(await client.call_tool("generate", {"prompt": "x", "sampler": "nope"}))
        assert "UNKNOWN_JOB" in _refusal(await client.call_tool("get_job", {"job": "nope"}))


async def test_it_looks_and_plans(place: Home) -> None:
    async with _connected(place) as client:
        for name in ("list_models", "list_loras", "list_samplers", "list_jobs"):
            assert not (await client.call_tool(name, {})).is_error, name
        plan = await client.call_tool("plan", {"prompt": "an apple", "width": 64, "height": 64})
        assert '"steps"' in getattr(plan.content[0], "text", "")


async def test_a_cancelled_call_cancels_its_job(place: Home) -> None:
    async with _connected(place) as client:
        with anyio.move_on_after(1):
            await client.call_tool("generate", {"prompt": "a [held] apple", "seed": 1})
        job = place.json("jobs", "list")[0]["id"]
        await anyio.to_thread.run_sync(lambda: place.craft("jobs", "wait", job))
        assert place.json("jobs", "show", job)["state"] == "CANCELLED"


@pytest.mark.parametrize(
    ("given", "code", "told"),
    [
        (("mcp", "--folder", "/proc/nowhere"), 74, "--folder"),
        (("mcp", "--root", "/nowhere"), 66, "--root: there is no folder /nowhere"),
        (("worker", "join", "localhost"), 2, "must be HOST:PORT"),
        (("worker", "join", "127.0.0.1:1", "--ca", "x"), 2, "craft fleet invite NAME"),
        (("worker", "join", "127.0.0.1:1"), 2, "--ca is missing"),
        (("generate", "a __colour__ cat", "--plan"), 0, "__colour__ is drawn as words; --wildcards"),
    ],
)
def test_what_would_do_nothing_is_said_at_once(place: Home, given: tuple[str, ...], code: int, told: str) -> None:
    done = place.craft(*given)
    assert (done.returncode, told in done.stderr) == (code, True), done.stderr
