"""Parts of the shim without a daemon."""

from __future__ import annotations

import asyncio
import io
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from craft_protos.infotexts import parse
from craft_protos.reasons import CraftError
from craft_protos.settings import LimitSettings
from craftd.architectures.rows.unets import SD1
from craftd.architectures.sizes import Sizes
from craftd.http import infotexts, lifting
from craftd.http.bodies import Bodies, Room, forgotten
from craftd.http.connection import Connection
from craftd.http.encoding import encode_again
from craftd.http.errors import public
from craftd.http.forms.automatic1111 import Txt2ImgRequest, generate_request, name_of
from craftd.http.guards import Crowd, host_name, names_of
from craftd.http.shape import Shape, check_shape
from craftd.http.sizes import side_lengths
from craftd.http.wording import AUTOMATIC1111, OPENAI, OWN, Wording, spoken
from craftd.models.model import Defaults, Model
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.server import ServerState

MODEL = Model("m", Path("m"), SD1, "", Sizes(8), Defaults(512, 512, 20, 7.5, "Euler"), ())


@pytest.mark.parametrize(
    ("told", "public_part"),
    [
        ("/var/lib/craft/images/x.png: the file is gone", "x.png: the file is gone"),
        ("LoRA it: /home/me/My Loras/it.safetensors has changed", "LoRA it: it.safetensors has changed"),
        ("[Errno 28] No space left: '/data/a/b'", "[Errno 28] No space left: 'b'"),
        ("~/.cache/craft/x", "x"),
        ("<PIL.Image object at 0x7f3a2c1b0d90>", "<PIL.Image object>"),
        ("and/or, 1/2, GET /docs lists them all", "and/or, 1/2, GET /docs lists them all"),
        ("a \ud800 b", "a ? b"),
    ],
)
def test_paths_and_addresses_stay_here(told: str, public_part: str) -> None:
    assert public(told) == public_part


_BYTES = 16_000_000
_MALICE = {
    "escaped quotes": b'"' + b'\\"' * (_BYTES // 2),
    "quotes": b'"' * _BYTES,
    "backslashes": b"\\" * _BYTES,
    "a string of backslashes": b'{"a":"' + b"\\" * _BYTES,
    "nothing": b"[" + b" " * _BYTES,
}


@pytest.mark.parametrize("body", _MALICE.values(), ids=_MALICE)
def test_the_look_at_a_body_takes_no_longer_for_malice(body: bytes) -> None:
    """Linear, or this test would not end; and others get their turns between the pieces."""

    async def look() -> int:
        looking = asyncio.create_task(check_shape(body))
        turns = 0
        while not looking.done():
            await asyncio.sleep(0)
            turns += 1
        await looking
        return turns

    assert asyncio.run(look()) > 400


@given(
    st.recursive(st.text() | st.integers() | st.none(), lambda part: st.lists(part) | st.dictionaries(st.text(), part))
)
def test_what_a_request_may_be_passes(value: object) -> None:
    asyncio.run(check_shape(json.dumps(value).encode()))


@given(st.text('"\\[]{}:,n', max_size=60), st.lists(st.integers(0, 60), max_size=6))
def test_bodies_are_looked_at_in_pieces_as_if_whole(text: str, cuts: list[int]) -> None:
    """Against a reader that goes from character to character; a cut may be within a string or an escape."""
    body, shape = text.encode(), Shape()
    places = [0, *sorted(cuts), len(body)]
    bare = b"".join(shape._outside_strings(body[start:end]) for start, end in pairwise(places))
    assert bare.replace(b"\\", b"") == _outside_strings(text).encode()


def _outside_strings(text: str) -> str:
    bare, is_in_string, is_escaped = "", False, False
    for character, after in zip(text, text[1:] + " ", strict=False):
        if is_escaped:
            is_escaped = False
        elif character == "\\":
            is_escaped = after in ("\\", '"')
        elif character == '"':
            is_in_string = not is_in_string
        elif not is_in_string:
            bare += character
    return bare


_DECOYS = ["", '"]}', "\\", '\\"[', "[[{{", "\\\\]"]


@given(st.lists(st.sampled_from(_DECOYS), max_size=4), st.integers(1, 40), st.integers(1, 20))
def test_depth_is_that_of_the_json(strings: list[str], depth: int, piece_bytes: int) -> None:
    value: object = strings
    for level in range(depth - 1):
        value = [*strings, value] if level % 2 else {"".join(strings): value}
    body, shape = json.dumps(value).encode(), Shape()
    told = [shape.add(body[start : start + piece_bytes]) for start in range(0, len(body), piece_bytes)]
    assert any(told) == (depth > 32)


@pytest.mark.parametrize(
    "encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be", "utf-8-sig"]
)
def test_no_encoding_hides_the_shape(encoding: str) -> None:
    for text in ('{"prompt": "x"}', "[" * 100_000, '"'):
        with pytest.raises(CraftError, match="UTF-8") as refusal:
            asyncio.run(check_shape(text.encode(encoding)))
        assert refusal.value.reason == "UNDECODABLE"


def test_what_closes_too_much_is_left_at_once() -> None:
    with pytest.raises(CraftError, match="has not opened"):
        asyncio.run(check_shape(b"[]" + b"]" * 16_000_000))


@pytest.mark.parametrize(
    ("shape", "sides"),
    [
        ("square_hd", (512, 512)),
        ("square", (256, 256)),
        ("portrait_4_3", (440, 592)),
        ("landscape_4_3", (592, 440)),
        ("portrait_16_9", (384, 680)),
        ("landscape_16_9", (680, 384)),
    ],
)
def test_shapes_have_the_models_pixels(shape: str, sides: tuple[int, int]) -> None:
    assert side_lengths(shape, MODEL, LimitSettings()) == sides
    width, height = side_lengths(shape, replace(MODEL, sizes=Sizes(64)), LimitSettings())
    assert width % 64 == height % 64 == 0
    width, height = side_lengths(shape, MODEL, LimitSettings(max_side=300, max_pixels=40_000))
    assert max(width, height) <= 300 and width * height <= 40_000 and width % 8 == height % 8 == 0


def test_names_of_servers() -> None:
    assert [host_name(host) for host in ("[::1]:80", "LOCALHOST:1", "a.b.", "::1")] == ["::1", "localhost", "a.b", ""]
    shut, wide = (names_of(host, "", (), ()) for host in ("127.0.0.1", "0.0.0.0"))
    assert not shut.knows_host("10.0.0.1") and wide.knows_host("10.0.0.1") and not wide.knows_host("evil.example")
    assert wide.knows_origin("https://10.0.0.1", "10.0.0.1:443") and not wide.knows_origin(
        "https://10.0.0.1:1", "10.0.0.1"
    )


def test_what_automatic1111s_requests_mean() -> None:
    body = Txt2ImgRequest(prompt="x", sampler_index="DPM++ 2M", scheduler="Karras", seed=-1, batch_size=2, n_iter=3)
    meant = generate_request(body, "m")
    assert (meant.sampler, meant.seed, meant.count, meant.model) == ("DPM++ 2M Karras", None, 6, "m")
    assert generate_request(Txt2ImgRequest(prompt="x", scheduler="Automatic"), "").sampler == ""
    settings = {"CLIP_stop_at_last_layers": 2, "eta": 1}
    body = Txt2ImgRequest.model_validate({"prompt": "x", "override_settings": settings})
    assert (generate_request(body, "m").clip_skip, generate_request(body, "m").model) == (2, "m")
    assert name_of("dream v1 [abcdef1234]") == "dream v1" and name_of("a [draft]") == "a [draft]"


def test_infotexts() -> None:
    numbers = {"width": 8, "height": 8, "steps": 5, "guidance_scale": 1.5, "seed": 3, "sampler": "Euler"}
    made = {
        "prompt": "x",
        "loras": [{"name": "it", "sha256": "cd", "weight": 0.5}],
        "versions": {"craft": "1"},
        **numbers,
    }
    made["model"] = {"name": "m", "sha256": "ab"}
    text = infotexts.of_provenance(json.dumps(made))
    assert text.startswith("x <lora:it:0.5>\nSteps: 5,") and parse(text)["Model"] == "m"
    assert infotexts.of_provenance("[]") == infotexts.of_provenance("?") == infotexts.of_provenance("{}") == ""


@pytest.mark.parametrize(
    ("hint", "own"),
    [
        ("use --format png or webp", "use output_format png or webp"),
        ("use a LoRA for it, or --lora-missing=skip to apply", "use a LoRA for it, or lora_missing=skip to apply"),
        (
            "`craft models show m -m x`; -m chooses another",
            "`craft models show m -m x`; model chooses another (on the server)",
        ),
        (
            "craft keys create --owner NAME, or leave --mask out; craft lora rm -m x",
            "craft keys create --owner NAME, or leave mask out; craft lora rm -m x (on the server)",
        ),
        ("try --precision fp32", "try the configuration's worker.precision fp32"),
        ("a - b, x--y, A-m, well-known", "a - b, x--y, A-m, well-known"),
    ],
)
def test_hints_in_a_requests_words(hint: str, own: str) -> None:
    assert spoken(hint, Wording({"format": "output_format"})) == own


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (OWN, "see GET /choices, or GET /choices"),
        (OPENAI, "see GET /v1/models, or GET /choices"),
        (AUTOMATIC1111, "see GET /sdapi/v1/sd-models, or GET /sdapi/v1/loras"),
    ],
)
def test_what_the_command_lists_is_a_route(words: Wording, told: str) -> None:
    assert spoken("see `craft models list`, or craft lora list --model m", words) == told


def test_values_in_quotes() -> None:
    """As AUTOMATIC1111 writes what has commas or colons in it; keys with spaces, dashes and strokes."""
    line = 'Steps: 20, Lora hashes: "a: 1b, c: 2d", Size: 8x8, TI: "say \\"x, y\\"", '
    line += 'Hires up-scale/x: 2, Empty: , Open: "a'
    read = parse(f"a: b, c\n{line}")
    quoted = {"Lora hashes": "a: 1b, c: 2d", "TI": 'say "x, y"', "Open": '"a'}
    assert read == {"Steps": "20", "Size": "8x8", "Hires up-scale/x": "2", "Empty": "", **quoted}
    assert parse("a" * 100_000) == parse('"' * 100_000) == {}


@pytest.mark.parametrize("image_format", ["jpeg", "webp"])
async def test_quality_is_heeded(image_format: str) -> None:
    stream = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(stream, "PNG")
    coarse, fine = [await encode_again(stream.getvalue(), image_format, quality, "{}") for quality in (10, 90)]
    assert len(coarse) < len(fine) / 2


def test_nobody_else_pays_for_it() -> None:
    """A daemon without HTTP imports none of its libraries."""
    dear = ("fastapi", "starlette", "uvicorn", "pydantic", "limits", "prometheus_client")
    code = f"import sys, craftd.serve; print([name for name in {dear} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


class Asked:
    """A request to `Bodies`, whose caller sends what it is told to; the app reads it and then draws until `drawn`."""

    def __init__(
        self,
        bodies: Callable[[ASGIApp], Bodies],
        path: str = "/x",
        length: int | None = None,
        client: str = "192.0.2.1",
    ) -> None:
        self._said: asyncio.Queue[Message] = asyncio.Queue()
        self.has_read, self.drawn = asyncio.Event(), asyncio.Event()
        headers = [(b"transfer-encoding", b"chunked")] if length is None else [(b"content-length", b"%d" % length)]
        scope = {"type": "http", "path": path, "headers": headers, "client": (client, 1)}
        self.done = asyncio.create_task(bodies(self._app)(scope, self._receive, self._send))

    forgets = False  # a picture's body, once it was read

    async def say(self, body: bytes, *, is_last: bool = False) -> None:
        self._said.put_nowait({"type": "http.request", "body": body, "more_body": not is_last})
        await self._said.join()

    async def _receive(self) -> Message:
        message = await self._said.get()
        self._said.task_done()
        return message

    async def refusal(self) -> str:
        with pytest.raises(CraftError) as refused:
            await self.done
        return refused.value.reason

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert (await receive())["more_body"] is False
        if self.forgets:
            forgotten(scope)
        self.has_read.set()
        await self.drawn.wait()

    async def _send(self, message: Message) -> None:
        raise AssertionError(message)


def _bodies(known: Room, others: Room, *, owner: str) -> Callable[[ASGIApp], Bodies]:
    """`owner`: of the key that the headers have; "" where they have none."""
    return lambda app: Bodies(app, 60, {"/picture": 100}, shows_key=lambda _: owner, known=known, others=others)


async def test_bodies_count_while_they_arrive() -> None:
    known, others = Room(200), Room(100, 2)
    bodies = _bodies(known, others, owner="")
    first, second = Asked(bodies), Asked(bodies)
    await first.say(b" " * 55)
    await second.say(b" " * 55)
    assert await second.refusal() == "RATE_LIMITED" and others.held_bytes == 55
    third = Asked(bodies)
    await third.say(b" ")
    assert await Asked(bodies).refusal() == "RATE_LIMITED"  # two at once
    keyed = Asked(_bodies(known, others, owner="alice"))
    await keyed.say(b" " * 55)
    assert known.held_bytes == 55
    for one in (first, third, keyed):
        one.done.cancel()
    await asyncio.wait([first.done, third.done, keyed.done])
    assert (known.held_bytes, known.bodies, others.held_bytes, others.bodies) == (0, 0, 0, 0)


async def test_what_was_read_takes_no_room_while_it_is_drawn() -> None:
    """But for pictures: they are larger, and done with soon."""
    room = Room(100)
    bodies = _bodies(room, room, owner="alice")
    drawing = [Asked(bodies) for _ in range(5)]
    for one in drawing:
        await one.say(b" " * 50, is_last=True)
        await one.has_read.wait()
        assert room.held_bytes == 0
    picture = Asked(bodies, "/picture")
    await picture.say(b" " * 90, is_last=True)
    await picture.has_read.wait()
    assert room.held_bytes == 90
    forgotten_one = Asked(bodies, "/picture")
    forgotten_one.forgets = True
    picture.drawn.set()
    await picture.done
    await forgotten_one.say(b" " * 90, is_last=True)
    await forgotten_one.has_read.wait()
    assert room.held_bytes == 0  # its job may take long
    for one in (*drawing, forgotten_one):
        one.drawn.set()
        await one.done
    assert (room.held_bytes, room.bodies) == (0, 0)


async def test_one_caller_has_a_share_of_the_room() -> None:
    """An owner with a key, and an address without."""
    known, others = Room(200, share=0.5), Room(200, 4, share=0.5)
    for room, owner in ((known, "alice"), (others, "")):
        bodies = _bodies(known, others, owner=owner)
        first, second = Asked(bodies), Asked(bodies)
        await first.say(b" " * 60)
        await second.say(b" " * 41)
        assert await second.refusal() == "RATE_LIMITED" and room.held_bytes == 60
        other = Asked(_bodies(known, others, owner="bob")) if owner else Asked(bodies, client="192.0.2.2")
        await other.say(b" " * 60)
        assert room.held_bytes == 120
        third = Asked(bodies)
        await third.say(b"")
        if not owner:
            assert await Asked(bodies).refusal() == "RATE_LIMITED"  # two of the four at once
        for one in (first, third, other):
            one.done.cancel()
        await asyncio.wait([first.done, third.done, other.done])
        assert (room.held_bytes, room.bodies, room._bytes_of, room._bodies_of) == (0, 0, {}, {})


async def test_large_bodies_need_a_key_in_the_headers() -> None:
    room = Room(1000)
    stranger, friend = (_bodies(room, room, owner=owner) for owner in ("", "alice"))
    assert await Asked(stranger, "/picture", 61).refusal() == "UNAUTHENTICATED"
    assert await Asked(stranger, "/picture", 101).refusal() == "MESSAGE_TOO_BIG"
    assert await Asked(stranger, "/x", 61).refusal() == "MESSAGE_TOO_BIG"
    streamed = Asked(stranger, "/picture")
    await streamed.say(b" " * 61)
    assert await streamed.refusal() == "UNAUTHENTICATED"
    for path, size in (("/picture", 101), ("/x", 61)):
        streamed = Asked(friend, path)
        await streamed.say(b" " * size)
        assert await streamed.refusal() == "MESSAGE_TOO_BIG"
    assert room.held_bytes == 0


async def test_a_crowd_is_refused_and_looked_after() -> None:
    """Who asks whether the process lives is told, unless they bring a body that may take its time."""

    ended = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await ended.wait()

    crowd = Crowd(app, 2, frozenset({"/healthz"}))

    def ask(path: str, *headers: tuple[bytes, bytes]) -> asyncio.Task[None]:
        scope = {"type": "http", "path": path, "headers": headers}
        return asyncio.create_task(crowd(scope, nobody, nobody))

    async def nobody(*_: Message) -> Any:
        raise AssertionError

    inside = [ask("/x"), ask("/x"), ask("/healthz")]
    for refused in (ask("/x"), ask("/healthz", (b"content-length", b"1"))):
        with pytest.raises(CraftError) as refusal:
            await refused
        assert refusal.value.reason == "RATE_LIMITED" and refusal.value.retry_after_s
    ended.set()
    await asyncio.gather(*inside)
    await ask("/x")


async def test_one_address_is_no_crowd() -> None:
    ended = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await ended.wait()

    crowd = Crowd(app, 3, frozenset(), most_of_one=2)

    async def nobody(*_: Message) -> Any:
        raise AssertionError

    def ask(client: str) -> asyncio.Task[None]:
        scope = {"type": "http", "path": "/x", "headers": [], "client": (client, 1)}
        return asyncio.create_task(crowd(scope, nobody, nobody))

    inside = [ask("2001:db8::1"), ask("2001:db8::2"), ask("192.0.2.1")]
    for client in ("2001:db8::3", "192.0.2.2"):  # one subscriber's network; all of them together
        with pytest.raises(CraftError, match="too many requests at once"):
            await ask(client)
    ended.set()
    await asyncio.gather(*inside)
    assert not crowd._now


class Quick(Connection):
    wait_s = 0.2


class Small(Connection):
    most = 3


class Fair(Connection):
    most, most_of_one = 4, 2


class Impatient(Connection):
    unread_s = 0.1


async def _greet(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"hi"})


@asynccontextmanager
async def greeting(kind: type[Connection], app: ASGIApp = _greet) -> AsyncIterator[int]:
    """The port of a server without a daemon."""
    config, state = uvicorn.Config(app, ws="none", log_config=None), ServerState()
    server = await asyncio.get_running_loop().create_server(lambda: kind(config, state, {}), "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


_GET, _HI = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", b"hi"


@pytest.mark.parametrize("asked", [b"", b"GET", _GET[:-2], _GET + _GET[:9], _GET[:-2] + b"content-length: 9\r\n\r\n1"])
async def test_who_asks_nothing_is_not_waited_for(asked: bytes) -> None:
    async with greeting(Quick) as port, asyncio.timeout(30):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(asked)
        if asked.startswith(_GET[:-2]) and len(asked) > len(_GET):
            assert (await reader.readuntil(_HI)).startswith(b"HTTP/1.1 200")
            writer.write(b"2")
        assert _HI not in await reader.read()  # until it is closed
        writer.close()


async def test_who_has_waited_longest_makes_way() -> None:
    async with greeting(Small) as port, asyncio.timeout(30):
        old = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        new = await asyncio.gather(*(asyncio.open_connection("127.0.0.1", port) for _ in range(3)))
        for reader, _ in old:
            assert await reader.read() == b""
        for reader, writer in new:
            writer.write(_GET)
            assert (await reader.readuntil(_HI)).startswith(b"HTTP/1.1 200")
        for _, writer in (*old, *new):
            writer.close()


async def test_an_address_with_too_many_makes_way_for_itself() -> None:
    """Whoever comes from elsewhere loses nothing by it."""
    async with greeting(Fair) as port, asyncio.timeout(30):
        other = await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.2", 0))
        first = await asyncio.open_connection("127.0.0.1", port)
        rest = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        assert await first[0].read() == b""
        for reader, writer in (other, *rest):
            writer.write(_GET)
            assert (await reader.readuntil(_HI)).startswith(b"HTTP/1.1 200")
        for _, writer in (first, other, *rest):
            writer.close()


async def test_of_all_the_address_with_most_makes_way() -> None:
    async with greeting(Fair) as port, asyncio.timeout(30):
        lone = await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.2", 0))
        pair = [await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.3", 0)) for _ in range(2)]
        new = [await asyncio.open_connection("127.0.0.1", port, local_addr=(f"127.0.0.{n}", 0)) for n in (4, 5)]
        assert await pair[0][0].read() == b""
        for reader, writer in (lone, pair[1], *new):
            writer.write(_GET)
            assert (await reader.readuntil(_HI)).startswith(b"HTTP/1.1 200")
        for _, writer in (lone, *pair, *new):
            writer.close()


_LARGE, _PIECE = 32 << 20, 64 << 10  # more than two sockets hold


@pytest.mark.parametrize("is_last", [False, True], ids=["a stream", "at once"])
async def test_who_takes_nothing_is_cut_off(is_last: bool) -> None:
    """The app's call ends, and with it what it held."""
    ended, lost = asyncio.Event(), asyncio.Event()

    class Told(Impatient):
        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            lost.set()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x" * _LARGE, "more_body": not is_last})
        if not is_last:
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        ended.set()

    async with greeting(Told, app) as port, asyncio.timeout(30):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 10)
        writer.write(_GET)
        await ended.wait()
        await lost.wait()
        left = await reader.read()  # what the sockets held
        assert 0 < len(left) < _LARGE // 2
        writer.close()


async def test_large_answers_arrive_whole() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % _LARGE)]})
        for start in range(0, _LARGE, 1 << 16):
            await send(
                {"type": "http.response.body", "body": b"x" * (1 << 16), "more_body": start + (1 << 16) < _LARGE}
            )

    async with greeting(Connection, app) as port, asyncio.timeout(30):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 10)
        writer.write(_GET)
        await reader.readuntil(b"\r\n\r\n")
        assert len(await reader.readexactly(_LARGE)) == _LARGE
        writer.close()


@pytest.mark.parametrize(
    "text",
    [
        '{"a": "' + "A" * 200_000 + '", "b": ["x", "' + "B" * 70_000 + '", {"c": 1.5}], "d": null}',
        '["' + "é" * 70_000 + '", "' + "A" * 70_000 + r'\n", "\"", "\\", "\\\"x"]',
        '"' + r"\"" * 50_000 + "A" * 70_000 + '"',
        '{"' + "k" * 70_000 + '": "v"}',
        "[]",
        "1",
    ],
)
def test_long_strings_are_lifted_out_and_put_back(text: str) -> None:
    assert lifting.parsed(text.encode()) == json.loads(text)


@pytest.mark.parametrize(
    "text", ['"' + "A" * 70_000, '["' + "A\n" * 70_000 + '"]', '["' + "A" * 70_000 + '" 1]', "", '"\\"', "é"]
)
def test_what_is_no_json_is_none_with_long_strings_either(text: str) -> None:
    with pytest.raises(ValueError, match=r".") as expected:
        json.loads(text)
    with pytest.raises(type(expected.value)) as found:
        lifting.parsed(text.encode())
    assert getattr(found.value, "pos", 0) == getattr(expected.value, "pos", 0)


def test_the_parser_sees_no_long_string(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = list[int]()

    def loads(body: bytes) -> object:
        seen.append(len(body))
        return json_loads(body)

    json_loads = json.loads
    monkeypatch.setattr(lifting.json, "loads", loads)
    assert lifting.parsed(b'{"init_images": ["' + b"A" * 5_000_000 + b'"], "x": 1}')["x"] == 1
    assert seen == [max(seen)] and seen[0] < 1000
