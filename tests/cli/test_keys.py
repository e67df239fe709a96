"""craft keys, and craft from afar with a key, as users type them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from craft_cli import main
from craft_cli.connection import autostart, diagnosis
from craft_cli.connection.session import Session
from craft_cli.generate import drawing
from craft_protos import config, images_pb2, jobs_pb2
from craft_protos.channels import is_local
from craft_protos.reasons import CraftError
from craft_protos.settings import TierSettings
from PIL import Image

from tests.daemon import certificates
from tests.home import Home
from tests.http.again import free_port

KEY = "craft_t9tvkjvyt1_g0c8b9p8hxvppq4662x1reg5aw09crkjt95f51t8v45bt0kkq6p62ea0jje"


def created(home: Home, owner: str, *more: str) -> str:
    """The key."""
    done = home.craft("keys", "create", "--owner", owner, *more)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def refusal(home: Home, *args: str, env: dict[str, str] | None = None) -> tuple[int, str, str]:
    """(exit code, reason, hint)."""
    done = home.craft(*args, "--json", env=env)
    error = json.loads(done.stderr.strip().splitlines()[-1])["error"]
    return done.returncode, error["reason"], error["hint"]


# craft keys


@pytest.fixture(scope="module")
def shared_home() -> Iterator[Home]:
    """With keys, and for callers from afar with TLS and tiers."""
    made = Home()
    yield made
    made.remove()


def test_a_key_is_shown_once(shared_home: Home) -> None:
    made = shared_home.json("keys", "create", "--owner", "once")
    assert list(made) == ["key", "id", "owner"] and made["owner"] == "once"
    assert made["key"].startswith(f"craft_{made['id']}_")
    done = shared_home.craft("keys", "create", "--owner", "plain")
    assert done.stderr == "" and done.stdout.count("\n") == 1 and done.stdout.startswith("craft_")
    listed = shared_home.craft("keys", "list", "--json").stdout + shared_home.craft("keys", "list").stdout
    assert made["id"] in listed and made["key"] not in listed and made["key"][-40:] not in listed


def test_the_list_is_a_contract(shared_home: Home) -> None:
    created(shared_home, "listed", "--admin")
    (one,) = [one for one in shared_home.json("keys", "list") if one["owner"] == "listed"]
    assert list(one) == ["id", "owner", "role", "state", "tier", "create_time", "last_used_time", "lapsed"]
    assert (one["role"], one["state"], one["tier"], one["last_used_time"]) == ("admin", "active", "default", None)


def test_the_life_of_a_key(shared_home: Home) -> None:
    created(shared_home, "mortal")

    def state() -> list[str]:
        return [one["state"] for one in shared_home.json("keys", "list") if one["owner"] == "mortal"]

    for verb, expected in (("suspend", ["suspended"]), ("resume", ["active"]), ("ban", ["banned"]), ("rm", ["banned"])):
        force = ["--force"] if verb == "ban" else []
        assert shared_home.craft("keys", verb, "mortal", *force).stdout == "mortal\n"
        assert state() == expected
    assert refusal(shared_home, "keys", "create", "--owner", "mortal")[:2] == (77, "KEY_BANNED")


def test_a_ban_is_asked_for(shared_home: Home) -> None:
    created(shared_home, "doubtful")
    done = shared_home.craft("keys", "ban", "doubtful")
    assert done.returncode == 2 and "ban doubtful for ever" in done.stderr and "--force" in done.stderr
    (one,) = [one for one in shared_home.json("keys", "list") if one["owner"] == "doubtful"]
    assert one["state"] == "active"


def test_what_is_wrong_is_said(shared_home: Home) -> None:
    created(shared_home, "alice")
    assert refusal(shared_home, "keys", "create", "--owner", "alice")[:2] == (65, "KEY_EXISTS")
    code, reason, hint = refusal(shared_home, "keys", "create", "--owner", "bob", "--tier", "defualt")
    assert (code, reason) == (65, "INVALID_FIELD") and "default" in hint
    assert refusal(shared_home, "keys", "create", "--owner", " ")[:2] == (65, "INVALID_FIELD")
    for verb in ("suspend", "rm"):
        done = shared_home.craft("keys", verb, "alcie")
        assert (done.returncode, done.stdout) == (66, "")
        assert "'alcie'" in done.stderr and "did you mean alice" in done.stderr


@pytest.mark.parametrize(
    "args",
    [("suspend", KEY), ("rm", "alice", KEY), ("create", "--owner", KEY), ("create", "--owner", "alice", "--key", KEY)],
)
def test_a_key_in_argv_is_not_taken(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, args: tuple[str, ...]
) -> None:
    monkeypatch.setattr(autostart, "find", lambda _: pytest.fail("it was about to be sent"))
    assert main.run(["keys", *args]) == 2
    assert KEY not in capsys.readouterr().err


def test_a_misspelt_verb_gets_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["keys", "supsend", "alice"]) == 2
    assert "suspend" in capsys.readouterr().err


# From afar


@pytest.fixture(scope="module")
def remote(shared_home: Home, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What a caller of the shared daemon, which listens to TLS, has in its environment, besides its key."""
    pems = certificates.make(tmp_path_factory.mktemp("pems"))
    shared_home.end_daemon()
    shared_home.paths.config_file.write_text("[tiers.narrow]\nimages_in_flight = 1\n")
    shared_home.env |= {
        "CRAFT_DAEMON_LISTEN": "127.0.0.1:0",
        "CRAFT_DAEMON_TLS_CERT": str(pems.cert),
        "CRAFT_DAEMON_TLS_KEY": str(pems.key),
    }
    assert shared_home.craft("daemon", "start").returncode == 0
    status = shared_home.json("daemon", "status")
    assert status["address"].startswith("unix:")
    assert status["listen"] in shared_home.craft("daemon", "status").stdout
    return {"CRAFT_HOST": status["listen"], "CRAFT_CA": str(pems.ca), "CRAFT_AUTOSTART": "0"}


def test_a_picture_from_afar(shared_home: Home, remote: dict[str, str]) -> None:
    env = remote | {"CRAFT_API_KEY": created(shared_home, "painter", "--tier", "narrow")}
    done = shared_home.craft("generate", "a red apple", "-o", "afar.png", "--json", env=env)
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    with Image.open(shared_home.work / "afar.png") as picture:
        assert picture.size == (made["width"], made["height"])
    assert made["job"] in shared_home.craft("jobs", "list", "--json", env=env).stdout
    assert shared_home.craft("images", "get", made["image"], "-o", "again.png", env=env).returncode == 0
    lines = "[slow] a red apple\na pear\n"  # of which the key may have one at a time
    batch = shared_home.craft("generate", "--batch", "-", "-o", "b-{n}.png", stdin=lines, env=env)
    assert batch.returncode == 0 and len(batch.stdout.splitlines()) == 2, batch.stderr
    other = remote | {"CRAFT_API_KEY": created(shared_home, "stranger")}
    assert shared_home.craft("jobs", "list", env=other).stdout == ""
    assert refusal(shared_home, "jobs", "show", made["job"], env=other)[:2] == (66, "UNKNOWN_JOB")
    assert refusal(shared_home, "images", "show", made["image"], env=other)[:2] == (66, "UNKNOWN_IMAGE")


def test_who_has_sent_too_much_waits_for_what_is_drawn() -> None:
    """Here the daemon says so at every second call."""
    calls: list[str] = []

    def count(name: str) -> None:
        calls.append(name)
        if len(calls) % 2:
            raise CraftError("RATE_LIMITED", "too many", retry_after_s=0.001)

    class Busy:
        def watch_job(self, _: str, preview_every: int) -> Iterator[jobs_pb2.JobEvent]:
            count("watch")
            yield jobs_pb2.JobEvent(snapshot=jobs_pb2.Job(state=jobs_pb2.JOB_STATE_SUCCEEDED))

        def get_image(self, _: str) -> tuple[images_pb2.Image, bytes]:
            count("get")
            return images_pb2.Image(), b"it"

    session = cast(Session, SimpleNamespace(client=Busy()))
    assert [event.WhichOneof("event") for event in drawing.follow(session, "j")] == ["finished"]
    assert drawing.fetch(session, images_pb2.Image(id="i")) == b"it"
    assert calls == ["watch", "watch", "get", "get"]


def test_a_key_from_a_file(shared_home: Home, remote: dict[str, str]) -> None:
    path = shared_home.root / "key"
    path.write_text(created(shared_home, "filer") + "\n")
    env = remote | {"CRAFT_API_KEY_FILE": str(path)}
    assert shared_home.craft("models", "list", env=env).returncode == 0
    piped = remote | {"CRAFT_API_KEY_FILE": "/dev/stdin"}
    assert shared_home.craft("models", "list", stdin=path.read_text(), env=piped).returncode == 0
    path.unlink()
    assert refusal(shared_home, "models", "list", env=env)[:2] == (78, "CONFIG_INVALID")


def test_who_is_refused_hears_why(shared_home: Home, remote: dict[str, str]) -> None:
    key = remote | {"CRAFT_API_KEY": created(shared_home, "refused")}
    assert refusal(shared_home, "jobs", "list", env=remote)[:2] == (77, "UNAUTHENTICATED")
    *whole, last = key["CRAFT_API_KEY"]
    wrong = remote | {"CRAFT_API_KEY": "".join([*whole, "0" if last != "0" else "1"])}
    assert refusal(shared_home, "jobs", "list", env=wrong)[:2] == (77, "UNAUTHENTICATED")
    assert refusal(shared_home, "keys", "list", env=key)[:2] == (77, "NOT_ALLOWED")
    assert shared_home.craft("daemon", "stop", env=key).returncode == 77
    shared_home.craft("keys", "suspend", "refused")
    assert refusal(shared_home, "jobs", "list", env=key)[:2] == (77, "KEY_SUSPENDED")
    shared_home.craft("keys", "ban", "refused", "--force")
    assert refusal(shared_home, "jobs", "list", env=key)[:2] == (77, "KEY_BANNED")
    plain = {name: value for name, value in key.items() if name != "CRAFT_CA"}
    assert refusal(shared_home, "daemon", "status", env=plain)[:2] == (69, "DAEMON_UNREACHABLE")
    for bad in ("two words", "ä"):
        assert refusal(shared_home, "jobs", "list", env=remote | {"CRAFT_API_KEY": bad})[:2] == (78, "CONFIG_INVALID")


def test_who_is_not_connected_hears_why(remote: dict[str, str], tmp_path: Path) -> None:
    def said(address: str = remote["CRAFT_HOST"], ca_file: str = "") -> str:
        return diagnosis.unreachable(address, ca_file).message

    (tmp_path / "junk.pem").write_text("junk")
    other = certificates.make(tmp_path).ca
    assert said() == f"no daemon answers at {remote['CRAFT_HOST']}: it speaks TLS, and CRAFT_CA is not set"
    assert "its certificate is not trusted" in said(ca_file=str(other))
    assert "holds no certificate" in said(ca_file=str(tmp_path / "junk.pem"))
    assert "that is no HOST:PORT" in said("studio")
    closed = f"127.0.0.1:{free_port()}"
    assert said(closed) == f"no daemon answers at {closed}: Connection refused"


def test_who_was_never_there_is_not_awaited(remote: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """`client` raises: the first call, which would wait for a daemon to come back, is never made."""
    closed = f"127.0.0.1:{free_port()}"
    for address in (closed, remote["CRAFT_HOST"], "studio"):  # the second speaks TLS
        monkeypatch.setenv("CRAFT_HOST", address)
        with pytest.raises(CraftError, match=f"no daemon answers at {address}"):
            _ = Session().client


def test_an_admins_key_does_what_the_socket_does(shared_home: Home, remote: dict[str, str]) -> None:
    env = remote | {"CRAFT_API_KEY": created(shared_home, "boss", "--admin")}
    assert "boss" in shared_home.craft("keys", "list", env=env).stdout
    assert shared_home.craft("keys", "create", "--owner", "by boss", env=env).returncode == 0
    assert shared_home.craft("daemon", "logs", "-n", "1", env=env).stdout


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("unix:/tmp/it.sock", True),
        ("localhost:1", True),
        ("127.0.0.1:1", True),
        ("[::1]:1", True),
        ("127.0.0.1.example.org:1", False),
        ("127.example.org:1", False),
        ("192.0.2.1:1", False),
        ("0.0.0.0:1", False),
        ("localhost.example.org:1", False),
        ("[2001:db8::1]:1", False),
    ],
)
def test_a_key_goes_out_plain_on_this_machine_alone(address: str, expected: bool) -> None:
    assert is_local(address) is expected


# Tiers


def test_tiers_are_read(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("[tiers.default]\nqueue_share = 0.1\n[tiers.paying]\nrequests_per_minute = 7\n")
    settings = config.load(file, {})
    assert settings.tier("paying") == TierSettings(requests_per_minute=7)
    assert settings.tier("gone") == settings.tier("default") == TierSettings(queue_share=0.1)
    assert config.load(tmp_path / "none.toml", {}).tier("default") == TierSettings()


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        ("[tiers.paying]\nqueue_share = 0.5\nrequests = 7\n", 3, "unknown key tiers.paying.requests"),
        ("[tiers.paying]\nqueue_share = 1.5\n", 2, "tiers.paying.queue_share must be from 0 to 1"),
        ("[tiers.a]\nqueue_share = 0.5\n[tiers.b]\nqueue_share = 'much'\n", 4, "tiers.b.queue_share must be a number"),
        ("[tiers.paying]\nimages_in_flight = 0\n", 2, "tiers.paying.images_in_flight must be"),
        ("[tiers]\npaying = 5\n", 2, "unknown key tiers.paying"),
        ("[generate]\n[tiers.'a b']\n", 2, "'a b' is no tier's name"),
        ("tiers = 5\n", 1, "unknown section [tiers]"),
        ("[daemon]\nlisten = 'everywhere'\n", 2, "daemon.listen must be HOST:PORT"),
        ("[daemon]\ntls_cert = 'cert.pem'\n", 2, "daemon.tls_cert must be an absolute path"),
        ("[keys]\nadmin_key_file = 'admin.key'\n", 2, "keys.admin_key_file must be an absolute path"),
    ],
)
def test_a_mistake_is_named_by_its_line(tmp_path: Path, text: str, line: int, why: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(text)
    with pytest.raises(CraftError) as caught:
        config.load(file, {})
    assert caught.value.reason == "CONFIG_INVALID"
    assert caught.value.message.startswith(f"{file}:{line}: {why}"), caught.value.message


def test_tiers_survive_config_set(shared_home: Home) -> None:
    path = shared_home.paths.config_file
    path.write_text("[tiers.paying]\nrequests_per_minute = 7\n")
    try:
        assert shared_home.craft("config", "set", "generate.format", "webp").returncode == 0
        assert config.load(path, {}).tier("paying").requests_per_minute == 7
        assert shared_home.json("config", "list")["tiers"]["paying"]["requests_per_minute"] == 7
        assert "tiers.paying.requests_per_minute\t7\tconfig.toml" in shared_home.craft("config", "list").stdout
        refused = shared_home.craft("config", "set", "tiers.paying.requests_per_minute", "8")
        assert refused.returncode == 78 and "[tiers.NAME]" in refused.stderr
    finally:
        path.unlink()
