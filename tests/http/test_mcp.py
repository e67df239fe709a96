"""/mcp, as an agent's client calls it: the protocol's own package, over streamable HTTP, with a key."""

from __future__ import annotations

import base64
import io
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.to_thread
import httpx2
import pytest
from craft_protos import jobs_pb2
from craft_protos.reasons import CraftError
from craft_protos.settings import HttpSettings, Settings
from craftd.http.services import HttpServices
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CallToolResult, ImageContent
from PIL import Image

from tests.home import HANG_S
from tests.http.shim import Keys, Shim, check_says_nothing, give_lora, make_keys, serving, told

TOOLS = {
    *("generate", "edit", "upscale", "plan", "list_models", "list_loras", "list_samplers"),
    *("list_jobs", "get_job", "cancel_job"),
}
SMALL = {"steps": 2, "width": 64, "height": 64, "seed": 4}
_HELLO = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}},
}
_LIST = {"jsonrpc": "2.0", "id": 2, "method": "tools/list", "params": {}}
_ACCEPT = {"accept": "application/json, text/event-stream"}


@pytest.fixture(scope="module")
def agents() -> Iterator[Shim]:
    with serving(CRAFT_HTTP_MCP="true") as one:
        give_lora(one)
        yield one


@pytest.fixture(scope="module")
def agents_keys(agents: Shim) -> Keys:
    return make_keys(agents)


@asynccontextmanager
async def _connected(agents: Shim, key: str, mode: str = "auto") -> AsyncIterator[Client]:
    with anyio.fail_after(HANG_S):
        async with httpx2.AsyncClient(headers={"authorization": f"Bearer {key}"}, timeout=HANG_S) as http:
            transport = streamable_http_client(f"{agents.url}/mcp", http_client=http)
            async with Client(transport, mode=mode) as client:  # type: ignore[arg-type]
                yield client


def _png() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(stream, "PNG")
    return stream.getvalue()


def _drawn(result: CallToolResult) -> list[dict[str, Any]]:
    assert not result.is_error and result.structured_content is not None, result.content
    images: list[dict[str, Any]] = result.structured_content["images"]
    return images


def _refusal(result: CallToolResult) -> str:
    assert result.is_error
    text = str(getattr(result.content[0], "text", ""))
    check_says_nothing(text)
    return text


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_it_draws_and_tells_how_far_it_is(agents: Shim, agents_keys: Keys, mode: str) -> None:
    heard: list[tuple[float, float | None]] = []

    async def hear(done: float, of: float | None, _words: str | None) -> None:
        heard.append((done, of))

    async with _connected(agents, agents_keys.user, mode) as client:
        assert {tool.name for tool in (await client.list_tools()).tools} == TOOLS, "no keys, no deleting, no pulling"
        asked = {**SMALL, "prompt": "a [slow] apple", "count": 2, "steps": 4, "loras": ["hero:0.5"]}
        result = await client.call_tool("generate", asked, progress_callback=hear)
    first, second = _drawn(result)
    assert (first["seed"], second["seed"], first["width"]) == (4, 5, 64)
    pictures = [one for one in result.content if isinstance(one, ImageContent)]
    for one, shown in zip((first, second), pictures, strict=True):
        whole = agents.call("GET", str(one["url"]).removeprefix(agents.url), agents_keys.user)
        assert base64.b64decode(shown.data) == whole.content and Image.open(io.BytesIO(whole.content)).size == (64, 64)
    assert heard == sorted(set(heard), key=lambda one: one[0]), "each says more than the one before"
    assert heard[-1][1] == 8


async def test_a_picture_comes_as_an_id_or_in_base64(agents: Shim, agents_keys: Keys) -> None:
    sent = agents.call("POST", "/inputs", agents_keys.user, data=_png()).json()["sha256"]
    encoded = base64.b64encode(_png()).decode()
    noise = io.BytesIO()
    Image.effect_noise((1200, 1200), 100).save(noise, "PNG")
    large = base64.b64encode(noise.getvalue()).decode()
    assert len(large) > 1 << 20, "more than other routes read"
    asked = {"prompt": "a pear", "steps": 2, "seed": 1}
    async with _connected(agents, agents_keys.user) as client:
        own = _drawn(await client.call_tool("edit", {**asked, "image": sent, "strength": 0.5}))[0]["id"]
        for image in (own, encoded, f"data:image/png;base64,{encoded}", large):
            masked = {"mask": sent} if image != large else {}
            assert _drawn(await client.call_tool("edit", {**asked, **masked, "image": image}))
        larger = await client.call_tool("upscale", {"image": own, "upscaler": "lanczos", "scale": 2})
        assert _drawn(larger)[0]["width"] == 128
    async with _connected(agents, agents_keys.other) as client:
        assert "UNKNOWN_IMAGE" in _refusal(await client.call_tool("edit", {**asked, "image": own}))
        assert "UNKNOWN_INPUT" in _refusal(await client.call_tool("edit", {**asked, "image": sent}))


@pytest.mark.parametrize(
    ("tool", "asked", "reason"),
    [
        (
            "edit",
            {"prompt": "x", "image": "/etc/passwd"},
            "image: is no picture and names none",
        ),
        ("edit", {"prompt": "x", "image": "http://127.0.0.1/" + "a" * 100}, "paths and URLs are not read"),
        ("edit", {"prompt": "x", "image": "file:///" + "a" * 100}, "paths and URLs are not read"),
        ("edit", {"prompt": "x", "image": "/pics/" * 20 + "it.png"}, "image: is no base64 (BAD_DATA)"),
        ("edit", {"prompt": "x", "image": "AAAA" * 50}, "(BAD_INPUT)"),
        ("edit", {"prompt": "x", "image": "0" * 64}, "UNKNOWN_INPUT"),
        ("edit", {"prompt": "x"}, "image: is missing"),
        ("upscale", {"image": "../it.png"}, "paths and URLs are not read"),
        ("generate", {"prompt": "x", "model": "nope"}, "UNKNOWN_MODEL"),
        ("generate", {"prompt": "x", "count": 9}, "count: "),
        ("generate", {"prompt": "x", "sampler": "nope"}, "sampler: "),
        ("generate", {"prompt": "x", "steps": "many"}, "steps: "),
        ("generate", {"prompt": "x", "loras": ["hero:heavy"]}, "loras: 'hero:heavy': "),
        ("generate", {"prompt": "x", "loras": ["hero:1e9"]}, "INVALID_FIELD"),
        ("generate", {"prompt": "x", "loras": ["nobody"]}, "UNKNOWN_LORA"),
        ("generate", {"prompt": "x", "image": "it"}, "image: is no field of this request"),
        ("get_job", {"job": "nope"}, "UNKNOWN_JOB"),
        ("list_jobs", {"limit": 101}, "limit: "),
        ("list_loras", {"model": "nope"}, "UNKNOWN_MODEL"),
    ],
)
async def test_what_is_wrong_is_said_in_crafts_words(
    agents: Shim, agents_keys: Keys, tool: str, asked: dict[str, Any], reason: str
) -> None:
    async with _connected(agents, agents_keys.user) as client:
        assert reason in _refusal(await client.call_tool(tool, asked))


async def test_it_looks_and_plans(agents: Shim, agents_keys: Keys) -> None:
    async with _connected(agents, agents_keys.user) as client:
        for name, has in (
            ("list_models", '"takes_masks"'),
            ("list_loras", '"sks hero"'),
            ("list_samplers", '"schedules"'),
            ("list_jobs", "["),
        ):
            result = await client.call_tool(name, {})
            assert not result.is_error and has in getattr(result.content[0], "text", ""), name
        plan = await client.call_tool("plan", {**SMALL, "prompt": "an apple", "loras": ["hero"]})
        assert '"fits"' in getattr(plan.content[0], "text", ""), plan


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_cancelled_call_cancels_its_job(agents: Shim, agents_keys: Keys, mode: str) -> None:
    async with _connected(agents, agents_keys.user, mode) as client:
        async with anyio.create_task_group() as calls:
            calls.start_soon(client.call_tool, "generate", {**SMALL, "prompt": "a [held] apple"})
            await anyio.to_thread.run_sync(agents.await_running, 1)
            job = await anyio.to_thread.run_sync(agents.newest)
            calls.cancel_scope.cancel()
        ended = await anyio.to_thread.run_sync(agents.finish, job.id)
    assert ended.state == jobs_pb2.JOB_STATE_CANCELLED


@pytest.mark.parametrize("whose", ["other", "admin"])
async def test_a_job_is_cancelled_by_its_key_alone(agents: Shim, agents_keys: Keys, whose: str) -> None:
    job = agents.post("/jobs", agents_keys.user, prompt="a [held] pear", steps=2).json()["id"]
    async with _connected(agents, getattr(agents_keys, whose)) as client:
        for name in ("get_job", "cancel_job"):
            assert "UNKNOWN_JOB" in _refusal(await client.call_tool(name, {"job": job}))
        assert job not in getattr((await client.call_tool("list_jobs", {})).content[0], "text", "")
    async with _connected(agents, agents_keys.user) as client:
        assert not (await client.call_tool("cancel_job", {"job": job})).is_error
    assert agents.finish(job).state == jobs_pb2.JOB_STATE_CANCELLED


def test_a_session_is_its_keys_alone(agents: Shim, agents_keys: Keys) -> None:
    opened = agents.call("POST", "/mcp", agents_keys.user, json=_HELLO, headers=_ACCEPT)
    headers = {**_ACCEPT, "mcp-session-id": opened.headers["mcp-session-id"]}
    for other in (agents_keys.other, agents_keys.admin):
        for method in ("POST", "DELETE"):
            assert agents.call(method, "/mcp", other, json=_LIST, headers=headers).status_code == 404
    assert agents.call("POST", "/mcp", agents_keys.user, json=_LIST, headers=headers).status_code == 200
    assert agents.call("DELETE", "/mcp", agents_keys.user, headers=headers).status_code == 200
    assert agents.call("POST", "/mcp", agents_keys.user, json=_LIST, headers=headers).status_code == 404


def test_the_guards_hold(agents: Shim, agents_keys: Keys) -> None:
    def ask(key: str = "", **headers: str) -> tuple[int, str]:
        return told(agents.call("POST", "/mcp", key, json=_HELLO, headers={**_ACCEPT, **headers}))[:2]

    assert ask() == (401, "UNAUTHENTICATED")
    assert ask("craft_0000000000_" + "0" * 59) == (401, "UNAUTHENTICATED")
    assert ask(agents_keys.suspended) == (403, "KEY_SUSPENDED")
    assert ask(agents_keys.banned) == (403, "KEY_BANNED")
    assert ask(agents_keys.user, host="evil.example") == (403, "FOREIGN_ORIGIN")
    assert ask(agents_keys.user, origin="http://evil.example") == (403, "FOREIGN_ORIGIN")
    deep = "[" * 100 + "]" * 100
    assert told(agents.call("POST", "/mcp", agents_keys.user, data=deep, headers=_ACCEPT))[1] == "UNDECODABLE"
    assert told(agents.call("GET", "/mcp", agents_keys.user))[:2] == (405, "WRONG_METHOD")
    large = b'"' + b"a" * (17 << 20) + b'"'
    assert told(agents.call("POST", "/mcp", agents_keys.user, data=large))[1] == "MESSAGE_TOO_BIG"
    assert "/mcp" in agents.call("GET", "/docs").text


def test_without_its_package_it_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("craftd.http.mcp")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mcp.server.lowlevel", None)
    settings = Settings(http=HttpSettings(enabled=True, mcp=True))
    nothing = [None] * 7
    with pytest.raises(CraftError, match=r"http\.mcp: the package mcp") as caught:
        _ = HttpServices(*nothing, settings, None).agents  # type: ignore[arg-type]
    assert caught.value.reason == "CONFIG_INVALID" and "extra mcp" in caught.value.hint
