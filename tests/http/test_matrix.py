"""Every route x every kind of caller, from the app's own list of routes: a new one cannot be forgotten."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import requests
from craft_protos import jobs_pb2, keys_pb2, loras_pb2
from craft_protos.settings import Settings
from craftd.http.app import make_app
from craftd.http.schema import needs_key, routes_of
from craftd.http.services import HttpServices
from fastapi.routing import APIRoute

from tests.daemon.harness import request
from tests.http.shim import Keys, Shim, check_says_nothing
from tests.lora_files import kohya

# The contract's own list of what needs no key. /docs and the schema: because this daemon is on loopback.
OPEN = {
    *("/healthz", "/readyz", "/models", "/samplers", "/image/{image_id}", "/", "/page/{name}", "/docs"),
    "/page/bot.json",
    "/openapi.json",
}
ADMINS = {"/metrics", "/overview"}
BAD_KEY = "craft_0000000000_" + "0" * 59


class _Nobody:
    """Stands where an app that is only looked at would have a supervisor."""

    is_ready = False

    def listen(self, _: object) -> None:
        return


def routes() -> list[tuple[str, str, bool]]:
    """(method, path, whether it asks for a key) of all."""
    nothing = [None] * 6
    services = HttpServices(*nothing, _Nobody(), Settings(), None)  # type: ignore[arg-type]
    app = make_app(services, services.settings.http)
    assert len(app.routes) == len(routes_of(app))
    return [(method, route.path, needs_key(route)) for route in routes_of(app) for method in _methods(route)]


def _methods(route: APIRoute) -> list[str]:
    return sorted(route.methods or ())


ROUTES = routes()
IDS = [f"{method} {path}" for method, path, _ in ROUTES]
each_route = pytest.mark.parametrize(("method", "path"), [(method, path) for method, path, _ in ROUTES], ids=IDS)


@dataclass(frozen=True)
class Belongings:
    """What alice has."""

    job_id: str
    image_id: str
    lora: loras_pb2.Lora

    def fill(self, path: str) -> str:
        known = {"job_id": self.job_id, "image_id": self.image_id, "category": "SD-1.5", "name": "main.js"}
        known["lora_id"] = self.lora.id
        return path.replace("{model:path}", "flat").format(**known)


@pytest.fixture(scope="module")
def belongings(shim: Shim, keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Belongings:
    """Drawn, private; and a LoRA."""
    file = kohya(tmp_path_factory.mktemp("loras") / "psst.safetensors", metadata={"modelspec.trigger_phrase": "hush"})
    body = {"model": "flat", "prompt": "a red apple", "steps": 2}
    job_id = shim.post("/jobs", keys.user, **body).json()["id"]
    job = shim.finish(job_id)
    assert job.state == jobs_pb2.JOB_STATE_SUCCEEDED
    return Belongings(job_id, job.images[0].id, shim.send_lora(file, "alice"))


def test_only_what_the_contract_lists_is_open() -> None:
    assert {path for _, path, is_keyed in ROUTES if not is_keyed} == OPEN


@each_route
def test_every_caller(shim: Shim, keys: Keys, belongings: Belongings, method: str, path: str) -> None:
    """An empty body is good for nothing: who gets so far that it is looked at was let in."""

    def status(key: str, **headers: str) -> int:
        answer = shim.call(method, belongings.fill(path), key, headers=headers, data=b"", stream=True)
        with answer:
            if answer.status_code >= 400:
                check_says_nothing(answer.text)
            return answer.status_code

    nobody, wrong = status(""), status(BAD_KEY)
    if path in OPEN:
        assert nobody == wrong and nobody in (200, 404, 503)  # 404: a private image
    else:
        assert (nobody, wrong, status("nonsense")) == (401, 401, 401)
        assert (status(keys.suspended), status(keys.banned)) == (403, 403)
        mine, admins = status(keys.other), status(keys.admin)
        assert (mine == 403) == (path in ADMINS) and mine not in (401, 500)
        assert admins not in (401, 403, 500)
        if "{image_id}" in path or "{job_id}" in path:
            assert mine == 404 and admins != 404
    for key in ("", keys.admin):
        assert status(key, Host="evil.example") == 403
        assert status(key, Origin="http://evil.example") == 403


@pytest.mark.parametrize("path", [path for method, path, _ in ROUTES if method == "GET" and path not in ("/docs",)])
def test_nothing_tells_of_anothers_lora(shim: Shim, keys: Keys, belongings: Belongings, path: str) -> None:
    lora = belongings.lora
    for key in ("", keys.other):
        with shim.call("GET", belongings.fill(path), key, stream=True) as answer:
            text = "" if "event-stream" in answer.headers.get("content-type", "") else answer.text
        text = text.replace(lora.id, "") if "{lora_id}" in path else text  # as it was asked for
        assert not [secret for secret in (lora.id, f'"{lora.name}"', lora.sha256, lora.trigger) if secret in text]


def test_lists_hold_ones_own_loras(shim: Shim, keys: Keys, belongings: Belongings) -> None:
    def named(path: str, key: str) -> bool:
        return f'"{belongings.lora.name}"' in shim.call("GET", path, key).text

    for path in ("/loras", "/sdapi/v1/loras", "/choices"):
        assert [named(path, key) for key in (keys.user, keys.other, keys.admin)] == [True, False, True], path


# Every route by which a LoRA is named: how it is.
NAMING: dict[str, Callable[[str], dict[str, object]]] = {
    "/jobs": lambda lora: {"prompt": "x", "loras": [{"lora": lora}]},
    "/generate": lambda lora: {"model": "flat", "prompt": "x", "loras": {lora: 1.0}},
    "/image/generate": lambda lora: {"model": "flat", "prompt": "x", "loras": {lora: 1.0}},
    "/image/create/lora": lambda lora: {"prompt": "x", "lora_id": lora, "response_format": "base64"},
    "/v1/images/generations": lambda lora: {"prompt": "x", "loras": [lora]},
    "/sdapi/v1/txt2img": lambda lora: {"prompt": f"x <lora:{lora}:1>", "steps": 1},
}


@pytest.mark.parametrize("path", [*NAMING])
def test_anothers_lora_is_not_there(shim: Shim, keys: Keys, belongings: Belongings, path: str) -> None:
    def told(lora: str, key: str) -> str:
        return shim.post(path, key, **NAMING[path](lora)).text.replace(lora, "?")

    lora = belongings.lora
    for text in (lora.id, lora.name, lora.sha256, lora.name + "s"):
        answer, unknown = (re.sub(r"\b[0-9a-f]{16}\b", "", told(one, keys.other)) for one in (text, "0" * len(text)))
        assert "UNKNOWN_LORA" in answer and answer == unknown
    assert "UNKNOWN_LORA" not in told(lora.name, keys.user)


@each_route
def test_the_schema_documents_it(shim: Shim, method: str, path: str) -> None:
    schema = shim.call("GET", "/openapi.json").json()
    documented = schema["paths"].get(path.replace("{model:path}", "{model}"), {}).get(method.lower())
    assert documented is not None
    assert {"400", "403", "422", "500", "503"} <= documented["responses"].keys()
    assert ("401" in documented["responses"]) == (path not in OPEN) == ("security" in documented)
    assert documented["description"]


@pytest.mark.parametrize("host", ["127.0.0.1.evil.example:80", "evil.example#127.0.0.1", "10.0.0.1", "", "[::2]:7811"])
def test_foreign_hosts(shim: Shim, host: str) -> None:
    assert shim.call("GET", "/models", headers={"Host": host}).status_code == 403


def test_own_hosts(shim: Shim) -> None:
    for host in ("localhost:1", "127.0.0.1", "LOCALHOST", "[::1]:80"):
        assert shim.call("GET", "/models", headers={"Host": host}).status_code == 200


def test_origins(shim: Shim) -> None:
    foreign = ("null", "https://127.0.0.1.evil.example", shim.url + ".evil.example", "file://", "http://[", "x")
    for origin in foreign:
        assert shim.call("GET", "/models", headers={"Origin": origin}).status_code == 403
    answer = shim.call("GET", "/models", headers={"Origin": shim.url})
    assert answer.status_code == 200 and not any(name.startswith("access-control") for name in answer.headers)


def test_keys_come_in_every_way(shim: Shim, keys: Keys) -> None:
    ways: list[Callable[[str], requests.Response]] = [
        lambda key: shim.call("POST", "/generate", json={}, headers={"X-API-Key": key}),
        lambda key: shim.call("POST", "/generate", json={}, headers={"Authorization": f"Bearer {key}"}),
        lambda key: shim.call("POST", "/generate", json={}, headers={"authorization": f"bearer {key}"}),
        lambda key: shim.call("POST", "/generate", json={}, auth=("anybody", key)),
        lambda key: shim.call("POST", "/generate", json={"token": key}),
        lambda key: shim.call("POST", "/v1/images/generations", json={"token": key}),
        lambda key: shim.call("POST", "/sdapi/v1/txt2img", json={"token": key, "steps": 0}),
        lambda key: shim.call("POST", "/image/create/lora", json={"token": key}),
    ]
    for call in ways:
        assert (call(keys.user).status_code, call(BAD_KEY).status_code) == (422, 401)
        assert (call(keys.suspended).status_code, call(keys.banned).status_code) == (403, 403)


def test_a_key_that_comes_back_works_as_before(shim: Shim) -> None:
    key = shim.key("carol")
    assert shim.call("GET", "/loras", key).status_code == 200
    shim.keys.SuspendKey(keys_pb2.SuspendKeyRequest(key="carol"))
    refused = shim.call("GET", "/loras", key)
    assert (refused.status_code, refused.json()["code"]) == (403, "KEY_SUSPENDED")
    shim.keys.ResumeKey(keys_pb2.ResumeKeyRequest(key="carol"))
    assert shim.call("GET", "/loras", key).status_code == 200
    shim.keys.BanOwner(keys_pb2.BanOwnerRequest(key="carol"))
    refused = shim.call("GET", "/loras", key)
    assert (refused.status_code, refused.json()["code"]) == (403, "KEY_BANNED")


def test_jobs_of_the_socket_are_not_a_keys(shim: Shim, keys: Keys) -> None:
    job = shim.jobs.CreateJob(request("a rocket"))
    assert shim.call("GET", f"/jobs/{job.id}", keys.user).status_code == 404
    assert shim.call("GET", f"/jobs/{job.id}", keys.admin).status_code == 200
