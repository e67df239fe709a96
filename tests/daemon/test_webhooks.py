"""Webhooks: signed, sent again, to listed hosts alone, and not forgotten by a daemon that is killed."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import signal
import stat
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from craft_protos.reasons import CraftError
from craft_protos.settings import WebhookSettings
from craftd.webhooks import sender, signing
from craftd.webhooks.targets import Targets

from tests.daemon.harness import reason, request, running
from tests.home import HANG_S, Home


@dataclass
class Receiver:
    """A caller's server: `answers` are its statuses in turn, the last of them again and again."""

    url: str = ""
    answers: list[int] = field(default_factory=lambda: [200])
    heard: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    news: threading.Condition = field(default_factory=threading.Condition)

    def take(self, headers: dict[str, str], body: bytes) -> int:
        with self.news:
            self.heard.append((headers, body))
            self.news.notify_all()
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            status = made.take({name.lower(): value for name, value in self.headers.items()}, body)
            self.send_response(status)
            if status == 302:
                self.send_header("location", f"{made.url}/elsewhere")
            self.end_headers()

        def log_message(self, format: str, *_: Any) -> None:
            """Nothing: the test looks at `heard`."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.url = f"http://127.0.0.1:{server.server_port}/hooks"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield made
    server.shutdown()
    thread.join()
    server.server_close()


def hosts(receiver: Receiver) -> str:
    return receiver.url.removesuffix("/hooks")


async def heard(receiver: Receiver, count: int) -> None:
    """Until it has heard so many."""

    def come() -> None:
        with receiver.news:
            assert receiver.news.wait_for(lambda: len(receiver.heard) >= count, HANG_S)

    await asyncio.to_thread(come)


def signed(secret_file: Path, headers: dict[str, str], body: bytes) -> bool:
    """As the specification's verifiers do it."""
    secret = base64.b64decode(secret_file.read_text().strip().removeprefix("whsec_"))
    text = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    wanted = base64.b64encode(hmac.new(secret, text, hashlib.sha256).digest()).decode()
    return hmac.compare_digest(headers["webhook-signature"], f"v1,{wanted}")


async def test_the_end_of_a_job_is_told_and_signed(make_home: Callable[..., Home], receiver: Receiver) -> None:
    home = make_home(CRAFT_WEBHOOKS_HOSTS=hosts(receiver))
    async with running(home) as daemon:
        job = await daemon.jobs.CreateJob(request("a red apple", webhook=receiver.url))
        await heard(receiver, 1)
        (headers, body), said = receiver.heard[0], json.loads(receiver.heard[0][1])
        assert said["type"] == "job.succeeded" and said["data"]["id"] == job.id == headers["webhook-id"]
        assert said["data"]["state"] == "JOB_STATE_SUCCEEDED" and len(said["data"]["images"]) == 1
        assert headers["content-type"] == "application/json" and headers["user-agent"].startswith("craft/")
        secret = home.paths.webhook_secret
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600
        assert signed(secret, headers, body) and not signed(secret, headers, body + b" ")
        await daemon.jobs.CreateJob(request("[fail] x", webhook=receiver.url))
        await heard(receiver, 2)
        assert json.loads(receiver.heard[1][1])["type"] == "job.failed"


async def test_it_is_tried_again_also_by_the_next_daemon(make_home: Callable[..., Home], receiver: Receiver) -> None:
    """Refused, redirected (which is not followed), killed meanwhile, and at last taken; the same id each time."""
    receiver.answers = [500, 302, 200]
    home = make_home(CRAFT_WEBHOOKS_HOSTS=hosts(receiver), CRAFT_WEBHOOKS_RETRY_S="0.05")
    async with running(home) as daemon:
        job = await daemon.jobs.CreateJob(request("a red apple", webhook=receiver.url))
        await heard(receiver, 1)
        await daemon.stop(signal.SIGKILL)
    async with running(home):
        await heard(receiver, 3)
    assert {headers["webhook-id"] for headers, _ in receiver.heard} == {job.id}
    assert len({body for _, body in receiver.heard}) == 1


async def test_one_who_wants_no_more_is_left_alone(make_home: Callable[..., Home], receiver: Receiver) -> None:
    receiver.answers = [410, 200]
    async with running(make_home(CRAFT_WEBHOOKS_HOSTS=hosts(receiver))) as daemon:
        first = await daemon.jobs.CreateJob(request("a", webhook=receiver.url))
        await heard(receiver, 1)
        second = await daemon.jobs.CreateJob(request("b", webhook=receiver.url))
        await heard(receiver, 2)
        assert [headers["webhook-id"] for headers, _ in receiver.heard] == [first.id, second.id]


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("http://127.0.0.1:1/other-port", "NOT_ALLOWED"),
        ("https://example.org/x", "NOT_ALLOWED"),
        ("http://hooks.example.org/plain", "NOT_ALLOWED"),
        ("https://hooks.example.org.evil.com/x", "NOT_ALLOWED"),
        ("https://user@hooks.example.org/x", "INVALID_FIELD"),
        ("https://hooks.example.org/x#part", "INVALID_FIELD"),
        ("file:///etc/passwd", "INVALID_FIELD"),
        ("gopher://hooks.example.org", "INVALID_FIELD"),
        ("https://", "INVALID_FIELD"),
        ("https://hooks.example.org:99999/", "INVALID_FIELD"),
        ("https://hooks.example.org/a b", "INVALID_FIELD"),
        ("https://hooks.example.org/\n", "INVALID_FIELD"),
        ("https://hooks.example.org/" + "x" * 3000, "INVALID_FIELD"),
        ("https://[::1", "INVALID_FIELD"),
    ],
)
def test_where_it_may_not_go(url: str, wanted: str) -> None:
    targets = Targets("hooks.example.org, hooks.example.org:8443, http://127.0.0.1:9000")
    for fine in ("", "https://HOOKS.example.org./x?y=1", "https://hooks.example.org:8443", "http://127.0.0.1:9000/x"):
        targets.check(fine)
    with pytest.raises(CraftError) as caught:
        targets.check(url)
    assert (caught.value.reason, caught.value.field) == (wanted, "webhook") and caught.value.hint
    with pytest.raises(CraftError, match="sends none"):
        Targets("").check("https://hooks.example.org/x")


async def test_without_hosts_a_job_with_one_is_refused(make_home: Callable[..., Home]) -> None:
    home = make_home()
    async with running(home) as daemon:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await daemon.jobs.CreateJob(request("a", webhook="https://example.org/"))
        assert reason(caught.value) == "NOT_ALLOWED"
    assert not home.paths.webhook_secret.exists()


@pytest.mark.parametrize("text", ["", "whsec_", "whsec_AAAA", "whsec_?", "AAAA"])
def test_a_file_without_a_secret(tmp_path: Path, text: str) -> None:
    path = tmp_path / "secret"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(CraftError, match=r"webhooks\.secret_file: .* holds no secret"):
        signing.load(path)


@pytest.mark.parametrize("hosts", ["https://a.org/path", "a b", "ftp://a.org", "a.org:x", "u@a.org"])
def test_hosts_that_are_none(hosts: str) -> None:
    with pytest.raises(CraftError, match=r"webhooks\.hosts"):
        Targets(hosts)


async def test_one_that_is_never_taken_is_tried_for_a_day(make_home: Callable[..., Home], receiver: Receiver) -> None:
    receiver.answers = [503]
    home = make_home(CRAFT_WEBHOOKS_HOSTS=hosts(receiver), CRAFT_WEBHOOKS_RETRY_S="0.01")
    async with running(home) as daemon:
        await daemon.jobs.CreateJob(request("a", webhook=receiver.url))
        await heard(receiver, 3)
    assert 24 * 3600 < sum(sender.WAITS) * WebhookSettings().retry_s < 48 * 3600
    assert list(sender.WAITS) == sorted(sender.WAITS)
