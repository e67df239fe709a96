"""The port: off by default, told by the status, closed to others without a key, known by its names."""

from __future__ import annotations

import json
import socket
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
from craft_protos import config
from craft_protos.reasons import CraftError
from craft_protos.settings import Settings

from tests.home import HANG_S, Home
from tests.http.again import free_port
from tests.http.shim import Shim, serving, told

_OUR_SITE, _PAGES = "https://craft.example.org/pictures", "https://pages.example.org"


def test_it_is_off_unless_it_is_asked_for(home: Home) -> None:
    assert not Settings().http.enabled and Settings().http.listen == "127.0.0.1:7811"
    assert home.craft("daemon", "start").returncode == 0
    assert json.loads(home.craft("daemon", "status", "--json").stdout)["http"] is None
    assert "http\toff" in home.craft("daemon", "status").stdout
    refused = home.craft("daemon", "start", "--http")
    assert refused.returncode == 75 and "without HTTP" in refused.stderr
    assert "craft daemon restart --http" in refused.stderr
    again = home.craft("daemon", "restart", "--http=127.0.0.1:0")
    assert again.returncode == 0, again.stderr
    address = json.loads(home.craft("daemon", "status", "--json").stdout)["http"]
    assert address.startswith("http://127.0.0.1:") and address in again.stderr
    known = home.craft("daemon", "start", "--http", "127.0.0.1:0")
    assert known.returncode == 0 and address in known.stderr


@pytest.mark.parametrize("value", ["nonsense", "127.0.0.1", "127.0.0.1:abc", ":80"])
def test_what_is_no_address(home: Home, value: str) -> None:
    refused = home.craft("daemon", "start", f"--http={value}")
    assert refused.returncode == 78 and "--http: must be HOST:PORT" in refused.stderr


def test_without_a_key_nobody_else_may_come(home: Home) -> None:
    refused = home.craft("daemon", "start", "--http=0.0.0.0:0")
    assert refused.returncode == 78
    assert "there is no key" in refused.stderr and "craft keys create" in refused.stderr


def test_a_port_that_is_taken(home: Home) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        refused = home.craft("daemon", "start", f"--http=127.0.0.1:{taken.getsockname()[1]}")
    assert refused.returncode == 78 and "in use" in refused.stderr


def test_a_taken_port_does_not_cost_the_daemon_that_runs(home: Home) -> None:
    assert home.craft("daemon", "start", f"--http=127.0.0.1:{free_port()}").returncode == 0
    before = json.loads(home.craft("daemon", "status", "--json").stdout)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        refused = home.craft("daemon", "restart", f"--http=127.0.0.1:{taken.getsockname()[1]}")
    assert refused.returncode == 78 and "in use; the daemon that runs goes on" in refused.stderr
    assert json.loads(home.craft("daemon", "status", "--json").stdout)["pid"] == before["pid"]
    again = home.craft("daemon", "restart", f"--http={urlsplit(before['http']).netloc}")
    assert again.returncode == 0, again.stderr


@pytest.mark.parametrize("name", ["public_url", "allowed_origins", "listen"])
def test_bad_settings(tmp_path: Path, name: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(f'[http]\n{name} = "ftp://x y"\n')
    with pytest.raises(CraftError, match=rf"config.toml:2: http.{name} must be"):
        config.load(file, {})


# Open to other machines


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Shim, str]]:
    """(a daemon that listens everywhere, the admin's key from its file)."""
    file = tmp_path_factory.mktemp("keys") / "admin.key"
    with serving(
        CRAFT_HTTP_LISTEN="0.0.0.0:0",
        CRAFT_HTTP_PUBLIC_URL=_OUR_SITE,
        CRAFT_HTTP_ALLOWED_HOSTS="studio.local, gpu.example.net",
        CRAFT_HTTP_ALLOWED_ORIGINS=_PAGES,
        CRAFT_KEYS_ADMIN_KEY_FILE=str(file),
    ) as one:
        one.url = one.url.replace("0.0.0.0", "127.0.0.1")
        yield one, _key_in(file)


def _key_in(file: Path) -> str:
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    return file.read_text().strip()


def test_hosts_by_name_and_address(wide: tuple[Shim, str]) -> None:
    shim, _ = wide
    for host in ("studio.local:80", "gpu.example.net", "craft.example.org", "192.168.1.5:7811", "[fe80::1]:7811"):
        assert shim.call("GET", "/models", headers={"Host": host}).status_code == 200
    for host in ("evil.example", "studio.local.evil.example", "example.net"):
        assert told(shim.call("GET", "/models", headers={"Host": host}))[:2] == (403, "FOREIGN_ORIGIN")


def test_urls_are_the_public_ones(wide: tuple[Shim, str]) -> None:
    shim, key = wide
    answer = shim.post("/v1/images/generations", key, prompt="x", response_format="url").json()
    assert answer["data"][0]["url"].startswith(f"{_OUR_SITE}/image/")


def test_documentation_needs_a_key(wide: tuple[Shim, str]) -> None:
    shim, key = wide
    for path in ("/docs", "/openapi.json"):
        assert told(shim.call("GET", path))[:2] == (401, "UNAUTHENTICATED")
        assert shim.call("GET", path, key).status_code == 200


@pytest.mark.parametrize(
    ("path", "where"),
    [
        ("/v1/images/generations", "as Authorization: Bearer KEY, the api_key of OpenAI's packages"),
        ("/sdapi/v1/txt2img", "as the password of Basic authentication"),
        ("/generate", "as the body's token"),
        ("/jobs", "as X-API-Key"),
    ],
)
def test_who_has_no_key_hears_where_this_contract_has_it(wide: tuple[Shim, str], path: str, where: str) -> None:
    answer = wide[0].call("POST", path, json={"prompt": "x"})
    said = answer.json().get("hint") or answer.json()["error"]["message"]
    assert answer.status_code == 401 and where in said and "CRAFT_API_KEY" not in said


def test_pages_that_are_allowed_may_call(wide: tuple[Shim, str]) -> None:
    shim, key = wide
    asking = {"Origin": _PAGES, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-api-key"}
    may = shim.call("OPTIONS", "/generate", headers=asking)
    assert may.status_code == 200 and may.headers["access-control-allow-origin"] == _PAGES
    answer = shim.call("GET", "/loras", key, headers={"Origin": _PAGES})
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, _PAGES)
    assert shim.call("GET", "/loras", key, headers={"Origin": "https://craft.example.org"}).status_code == 200
    refused = shim.call("OPTIONS", "/generate", headers=asking | {"Origin": "https://evil.example"})
    assert refused.status_code == 403


def test_the_documentation_is_whole_in_itself(shim: Shim) -> None:
    page = shim.call("GET", "/docs").text
    assert "<script" not in page and "http://" not in page and "https://" not in page and "//cdn" not in page
    schema = shim.call("GET", "/openapi.json").json()
    assert all(path in page for path in schema["paths"])


def test_who_says_nothing_keeps_nobody_out(shim: Shim) -> None:
    """Who comes after them is served; a connection that stood open before, as the session's may, makes way."""
    place = urlsplit(shim.url)
    with ExitStack() as silent:
        for _ in range(450):
            silent.enter_context(socket.create_connection((place.hostname, place.port), HANG_S))
        assert requests.get(f"{shim.url}/models", timeout=HANG_S).status_code == 200
