"""A daemon with little room: full queues, rates, wrong keys, and its end. The tests run in this order."""

from __future__ import annotations

import itertools
import re
import signal
import threading
import time
from collections.abc import Iterator

import pytest
import requests

from tests.home import HANG_S, until
from tests.http.shim import Shim, serving, told

_TIERS = "[tiers.default]\nqueue_share = 1.0\n[tiers.slow]\nrequests_per_minute = 3\n"
_DRAWING: dict[str, dict[str, object]] = {
    "/generate": {"model": "flat"},
    "/image/generate": {"model": "flat"},
    "/v1/images/generations": {},
    "/sdapi/v1/txt2img": {},
    "/jobs": {},
}


@pytest.fixture(scope="module")
def small() -> Iterator[Shim]:
    with serving(
        _TIERS,
        CRAFT_DAEMON_QUEUE_LIMIT="2",
        CRAFT_WORKER_MAX_ROWS="1",
        CRAFT_KEYS_FAILURES_PER_MINUTE="5",
    ) as one:
        yield one


@pytest.fixture(scope="module")
def alice(small: Shim) -> str:
    return small.key("alice")


def test_a_worker_comes_when_it_is_asked_for(small: Shim) -> None:
    first = small.call("GET", "/readyz")
    assert (first.status_code, first.json()) == (503, {"status": "starting"}) and first.headers["retry-after"] == "1"
    until(lambda: small.call("GET", "/readyz").status_code == 200, "a worker is there")
    assert small.call("GET", "/readyz").json() == {"status": "ready"}


def test_wrong_keys_are_throttled(small: Shim, alice: str) -> None:
    answers = [small.call("GET", "/loras", "nonsense") for _ in range(8)]
    assert [one.status_code for one in answers] == [401] * 5 + [429] * 3
    assert int(answers[-1].headers["retry-after"]) >= 1
    assert answers[0].headers["www-authenticate"].startswith("Bearer")
    assert small.call("GET", "/loras", alice).status_code == 200  # who has one is not locked out


def test_large_bodies_need_a_key_in_the_headers(small: Shim, alice: str) -> None:
    """Before they are read."""
    body = {"image": "a" * (2 << 20), "token": alice}
    assert told(small.post("/sdapi/v1/png-info", **body))[:2] == (401, "UNAUTHENTICATED")
    assert told(small.post("/sdapi/v1/png-info", alice, **body))[:2] == (422, "BAD_DATA")


def test_rates_are_told_and_kept(small: Shim) -> None:
    for number in itertools.count():
        minute, key = time.time() // 60, small.key(f"slow {number}", tier="slow")
        answers = [small.call("GET", "/loras", key) for _ in range(4)]
        if time.time() // 60 == minute:  # by which they are counted
            break
    assert [one.status_code for one in answers] == [200, 200, 200, 429]
    assert answers[0].headers["ratelimit-policy"] == '"requests";q=3;w=60'
    assert re.fullmatch(r'"requests";r=2;t=\d+', answers[0].headers["ratelimit"])
    assert re.fullmatch(r'"requests";r=0;t=\d+', answers[3].headers["ratelimit"])
    assert told(answers[3])[1] == "RATE_LIMITED" and int(answers[3].headers["retry-after"]) >= 1
    assert small.call("GET", "/models").status_code == 200


def test_a_full_queue_refuses_at_once(small: Shim, alice: str) -> None:
    small.fill(alice, 2)
    for path, body in _DRAWING.items():
        answer = small.post(path, alice, prompt="y", **body)
        assert told(answer)[:2] == (429, "QUEUE_FULL") and int(answer.headers["retry-after"]) >= 1
    assert small.status().queued == 2
    assert small.call("GET", "/readyz").json() == {"status": "ready"}


def test_the_end(small: Shim, alice: str) -> None:
    """While the daemon drains it still answers: nothing new begins, what runs is answered."""
    small.home.release()
    small.await_running(0)
    (small.home.paths.files_dir / "release").unlink()
    answers: list[requests.Response] = []
    body = {"prompt": "[held] last", "model": "flat", "token": alice}
    waiting = threading.Thread(target=lambda: answers.append(requests.post(f"{small.url}/generate", json=body)))
    waiting.start()
    small.await_running(1)
    small.process.send_signal(signal.SIGTERM)
    until(lambda: small.call("GET", "/readyz").json() == {"status": "stopping"}, "it drains")
    assert small.call("GET", "/readyz").status_code == 503
    for path, fields in _DRAWING.items():
        answer = small.post(path, alice, prompt="y", **fields)
        assert told(answer)[:2] == (503, "DRAINING") and answer.headers["retry-after"]
    small.home.release()
    waiting.join()
    assert answers[0].status_code == 200 and len(answers[0].json()) == 1
    assert small.process.wait(HANG_S) == 0
