"""HTTP as real programs speak it: curl, urllib, requests, openai, and sockets that keep to the letter of it."""

from __future__ import annotations

import base64
import json
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from urllib.parse import urlsplit

import openai
import pytest
from craft_protos import jobs_pb2, loras_pb2

from tests.home import HANG_S
from tests.http.shim import Keys, Shim, serving, told, tool
from tests.http.test_matrix import ROUTES, Belongings

_OUR_SITE = "https://craft.example.org/pictures"
_BODY: dict[str, object] = {"model": "flat", "prompt": "x", "steps": 2}
_PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def strict() -> Iterator[Shim]:
    """Behind a proxy, below a URL of its own, and short of patience with wrong keys."""
    with serving(
        CRAFT_KEYS_FAILURES_PER_MINUTE="2",
        CRAFT_HTTP_TRUSTED_PROXIES="127.0.0.1, 10.0.0.0/8",
        CRAFT_HTTP_PUBLIC_URL=_OUR_SITE,
    ) as one:
        yield one


@pytest.fixture(scope="module")
def strict_key(strict: Shim) -> str:
    return strict.key("alice")


# Keys


def curl(*words: str) -> tuple[str, str]:
    """(body, status)."""
    command = [tool("curl"), "-sS", "-w", r"\n%{http_code}", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANG_S, check=True)
    body, _, status = done.stdout.rpartition("\n")
    return body, status


def test_curl_asks_without_its_key_first(strict: Shim, strict_key: str) -> None:
    """Again and again: to show no key is no guess."""
    for _ in range(5):
        assert curl("--anyauth", "-u", f"craft:{strict_key}", f"{strict.url}/loras")[1] == "200"
    body, status = curl("--anyauth", "-u", f"craft:{strict_key}", "--json", json.dumps(_BODY), f"{strict.url}/generate")
    assert status == "200" and base64.b64decode(json.loads(body)[0]).startswith(_PNG)


def test_urllib_asks_without_its_key_first(strict: Shim, strict_key: str) -> None:
    passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
    passwords.add_password(None, strict.url, "craft", strict_key)
    for _ in range(5):
        opener = urllib.request.build_opener(urllib.request.HTTPBasicAuthHandler(passwords))
        with opener.open(f"{strict.url}/loras", timeout=HANG_S) as answer:
            assert answer.status == 200 and json.load(answer) == []


def test_nobody_behind_a_proxy_locks_others_out(strict: Shim, strict_key: str) -> None:
    def status(key: str, client: str) -> int:
        return strict.call("GET", "/loras", key, headers={"X-Forwarded-For": client}).status_code

    assert [status("nonsense", "203.0.113.1") for _ in range(4)] == [401, 401, 429, 429]
    assert status("nonsense", "203.0.113.2") == 401 and status("", "203.0.113.1") == 401
    assert status(strict_key, "203.0.113.1") == 200
    assert status("nonsense", "203.0.113.1, 10.1.1.1") == 429  # the outer one of two proxies that are known
    assert status("nonsense", "203.0.113.1, 192.0.2.7") == 401  # whoever is no proxy of ours says what it likes


# Methods and targets


def test_head_is_get_without_the_body(shim: Shim, keys: Keys) -> None:
    job = shim.finish(shim.post("/jobs", keys.user, **_BODY).json()["id"])
    owned = Belongings(job.id, job.images[0].id, loras_pb2.Lora())
    for path in [owned.fill(path) for method, path, _ in ROUTES if method == "GET"]:
        for key in (keys.user, keys.admin):
            with shim.call("GET", path, key, stream=True) as got:
                head = shim.call("HEAD", path, key)
                assert (head.status_code, head.headers.get("content-type")) == (
                    got.status_code,
                    got.headers.get("content-type"),
                ), path
                assert head.content == b"" and head.headers["x-request-id"]
    picture = shim.call("HEAD", f"/images/{owned.image_id}", keys.user)
    assert picture.headers["content-type"] == "image/png" and int(picture.headers["content-length"]) > 100


def test_head_where_there_is_no_get(shim: Shim, keys: Keys) -> None:
    answer = shim.call("HEAD", "/generate", keys.user)
    assert (answer.status_code, answer.content, answer.headers["allow"]) == (405, b"", "POST")


def test_a_redirect_leads_to_where_the_caller_is(strict: Shim, shim: Shim) -> None:
    answer = strict.call("GET", "/models/?a=1", allow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (307, f"{_OUR_SITE}/models?a=1")
    answer = shim.call("GET", "/models/", allow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (307, f"{shim.url}/models")
    assert shim.call("GET", "/models/").json() == ["pocket", "flat"]
    away = strict.call("GET", "//evil.example/models/", allow_redirects=False)
    assert away.headers.get("location", _OUR_SITE).startswith(_OUR_SITE)


def raw(shim: Shim, request: bytes, *, half_closed: bool = False) -> tuple[int, bytes]:
    """(status, body) of the last answer on a connection of its own."""
    place = urlsplit(shim.url)
    with socket.create_connection((place.hostname, place.port), HANG_S) as connection:
        connection.sendall(request)
        if half_closed:
            connection.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    answer = answer.removeprefix(b"HTTP/1.1 100 \r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


def test_targets_in_absolute_form(shim: Shim) -> None:
    """As a caller sends them that takes this server for a proxy: curl -x does."""
    own = shim.url.encode()
    end = b" HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n"
    assert raw(shim, b"GET " + own + b"/models" + end) == (200, b'["pocket","flat"]')
    assert raw(shim, b"GET http://evil.example/models" + end)[0] == 403
    assert raw(shim, b"GET " + own + end)[0] == 200  # the page
    status, body = raw(shim, b"GET " + own + b"/v1/nothing" + end)
    assert status == 404 and json.loads(body)["error"]["code"] == "UNKNOWN_ROUTE"
    assert curl("-x", shim.url, f"{shim.url}/models") == ('["pocket","flat"]', "200")


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("/images/generations", "the route is /v1/images/generations: the client's base URL is to end with /v1"),
        ("/v1/v1/images/generations", "the route is /v1/images/generations: the client's base URL is not to end with"),
        ("/txt2img", "the route is /sdapi/v1/txt2img: the client's base URL is to end with /sdapi/v1"),
        ("/sdapi/v1/sdapi/v1/txt2img", "the route is /sdapi/v1/txt2img: the client's base URL is not to end"),
        ("/image/create/loar", "did you mean /image/create/lora?"),
        ("/nothing/like/it", "GET /docs lists them all"),
    ],
)
def test_base_urls_of_another_contract(shim: Shim, keys: Keys, path: str, hint: str) -> None:
    answer = shim.post(path, keys.user, prompt="x")
    assert answer.status_code in (404, 405) and hint in answer.text


def test_a_wrong_method_sends_nobody_to_another_route(shim: Shim, keys: Keys) -> None:
    answer = shim.call("GET", "/v1/images/generations", keys.user)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert "GET /docs says what the route takes" in answer.text and "variations" not in answer.text


def test_openais_package_hears_what_its_base_url_lacks(shim: Shim, keys: Keys) -> None:
    client = openai.OpenAI(base_url=shim.url, api_key=keys.user, max_retries=0)
    with client, pytest.raises(openai.APIStatusError, match="base URL is to end with /v1"):
        client.images.generate(prompt="x")


# Bodies


def test_pictures_are_no_json(shim: Shim, keys: Keys) -> None:
    """But where pictures are taken, a form is read, and its key as well."""
    client = openai.OpenAI(base_url=f"{shim.url}/v1", api_key=keys.user, max_retries=0)
    with client, pytest.raises(openai.UnprocessableEntityError) as refused:
        client.images.edit(image=("a.png", _PNG + b"\xff" * (2 << 20), "image/png"), prompt="x")
    assert (refused.value.code, refused.value.param) == ("BAD_INPUT", "image")
    upload = {"image": ("a.png", _PNG + b"\xff\0", "image/png"), "token": (None, keys.user)}
    answer = shim.call("POST", "/v1/images/edits", files=upload)
    assert told(answer) == (422, "INVALID_FIELD", "prompt")
    for path in ("/v1/images/generations", "/generate", "/sdapi/v1/txt2img"):
        answer = shim.call("POST", path, keys.user, files=upload)
        assert told(answer)[:2] == (400, "UNDECODABLE") and "multipart/form-data" in answer.text
    for path, status in (("/nothing", 404), ("/v1/models", 405), ("/images/generations", 405)):
        assert shim.call("POST", path, keys.user, files=upload).status_code == status
    assert told(shim.call("POST", "/v1/images/edits", keys.user, data=b"[" * 100_000))[:2] == (400, "UNDECODABLE")
    assert told(shim.call("POST", "/v1/images/edits", data=b'{"token":' * 9_000))[:2] == (401, "UNAUTHENTICATED")


@pytest.mark.parametrize("kind", ["", "application/x-www-form-urlencoded", "text/plain", "application/json;charset=x"])
def test_json_by_any_other_name(shim: Shim, keys: Keys, kind: str) -> None:
    """`curl -d` calls it a form."""
    answer = shim.call("POST", "/jobs", keys.user, data=b'{"prompt": "x", "steps": 2}', headers={"content-type": kind})
    assert answer.status_code == 201, answer.text
    asked = ("-H", f"X-API-Key: {keys.user}", "-d", json.dumps(_BODY), f"{shim.url}/generate")
    assert curl(*asked)[1] == "200"


# Half a connection


def posted(path: str, key: str, body: dict[str, object], version: str = "1.1") -> bytes:
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/{version}\r\nHost: localhost\r\nX-API-Key: {key}\r\nContent-Length: {len(data)}\r\n\r\n"
    return head.encode() + data


@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_who_sends_no_more_is_answered(shim: Shim, keys: Keys, version: str) -> None:
    status, body = raw(shim, posted("/generate", keys.user, _BODY, version), half_closed=True)
    assert status == 200 and base64.b64decode(json.loads(body)[0]).startswith(_PNG)
    get = f"GET /models HTTP/{version}\r\nHost: localhost\r\n\r\n".encode()
    assert raw(shim, get, half_closed=True) == (200, b'["pocket","flat"]')
    assert raw(shim, get * 2 if version == "1.1" else get, half_closed=True)[0] == 200


def test_who_sends_no_more_may_wait_for_long(shim: Shim, keys: Keys) -> None:
    long = {"model": "flat", "prompt": "[slow] x", "steps": 60}
    assert raw(shim, posted("/generate", keys.user, long), half_closed=True)[0] == 200


@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_who_sends_no_more_and_then_goes_has_gone(shim: Shim, keys: Keys, version: str) -> None:
    place, before = urlsplit(shim.url), shim.newest().id
    with socket.create_connection((place.hostname, place.port), HANG_S) as connection:
        long = {"model": "flat", "prompt": "[slow] gone", "steps": 1000}
        connection.sendall(posted("/generate", keys.user, long, version))
        connection.settimeout(0)
        while (job := shim.newest()).id == before:
            with pytest.raises(BlockingIOError):  # no answer yet: it is being drawn
                connection.recv(1, socket.MSG_PEEK)
    assert shim.finish(job.id).state == jobs_pb2.JOB_STATE_CANCELLED


# Words


def test_errors_have_the_words_of_the_contract(shim: Shim, keys: Keys) -> None:
    answer = shim.post("/v1/images/generations", keys.user, prompt="x", size="65x64", model="flat")
    assert told(answer) == (422, "INVALID_FIELD", "size")
    assert "size: the width must be" in answer.json()["error"]["message"]
    long = "\u96ea" * 10_000  # six bytes each in a picture's metadata
    for path, field in (("/v1/images/generations", "output_format"), ("/jobs", "format")):
        answer = shim.post(path, keys.user, prompt=long, **{field: "jpeg"})
        assert told(answer) == (422, "INVALID_FIELD", "prompt")
        assert f"use {field} png or webp" in answer.text and "--" not in answer.text
