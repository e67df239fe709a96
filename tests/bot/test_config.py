"""What is wrong with the configuration is named, with the next step, and never what is secret."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from craft_protos import config, daemon_pb2, daemon_pb2_grpc, keys_pb2, keys_pb2_grpc
from craft_protos.reasons import CraftError
from craft_protos.settings import TelegramSettings
from craftd.bot import token

from tests.bot.telegram import TOKEN
from tests.daemon.harness import spawn_and_wait
from tests.home import Home


def _run(home: Home, *command: str, **env: str) -> subprocess.CompletedProcess[str]:
    given = command or ("-m", "craftd.bot")
    done = home.run([sys.executable, *given], env=env)
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def _token_file(folder: Path, text: str = TOKEN, mode: int = 0o600) -> str:
    path = folder / "token"
    path.write_text(text)
    path.chmod(mode)
    return str(path)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o622])
def test_a_token_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(CraftError, match="read or written by others") as caught:
        token.load(_token_file(tmp_path, mode=mode))
    assert caught.value.hint == f"chmod 600 {tmp_path / 'token'}" and TOKEN not in str(caught.value)


def test_a_token_of_ones_own_is_read(tmp_path: Path) -> None:
    assert token.load(_token_file(tmp_path, f"  {TOKEN}\n")) == TOKEN
    assert token.load(_token_file(tmp_path, mode=0o400)) == TOKEN


@pytest.mark.parametrize("text", ["", "hello", TOKEN[:12], TOKEN + " " + TOKEN, "123:\u00e9" * 9])
def test_what_is_no_token_is_not_told(tmp_path: Path, text: str) -> None:
    with pytest.raises(CraftError, match="holds no token") as caught:
        token.load(_token_file(tmp_path, text))
    assert not text or text not in f"{caught.value.message} {caught.value.hint}"


def test_a_token_file_is_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    for path, why in (("pipe", "is not a file"), ("none", "cannot be read"), (".", "is not a file|cannot be read")):
        with pytest.raises(CraftError, match=why):
            token.load(str(tmp_path / path))
    with pytest.raises(CraftError, match="is not set"):
        token.load("")


@pytest.mark.parametrize(
    ("name", "value", "is_right"),
    [
        ("channel", "@craft_channel", True),
        ("channel", "-1001234567890", True),
        ("channel", "", True),
        ("channel", "craft_channel", False),
        ("channel", "https://t.me/craft", False),
        ("api_url", "https://api.telegram.org", True),
        ("api_url", "http://127.0.0.1:8081", True),
        ("api_url", "http://[::1]:8081/x", True),
        ("api_url", "http://localhost", True),
        ("api_url", "http://example.org", False),
        ("api_url", "http://127.0.0.1.example.org", False),
        ("api_url", "ftp://example.org", False),
        ("admins", "1, 22,333", True),
        ("admins", "", True),
        ("admins", "@ada", False),
        ("invite_url", "https://t.me/+abc", True),
        ("invite_url", "t.me/abc", False),
        ("token_file", "relative", False),
        ("sweep_every_s", "86401", False),
        ("sweep_every_s", "86400", True),
        ("commands_per_minute", "0", False),
        ("draw", "perhaps", False),
        ("enabled", "true", True),
    ],
)
def test_settings_have_their_forms(tmp_path: Path, name: str, value: str, is_right: bool) -> None:
    variable = f"CRAFT_TELEGRAM_{name.upper()}"
    if is_right:
        config.load(tmp_path / "none.toml", {variable: value})
        return
    with pytest.raises(CraftError, match=variable):
        config.load(tmp_path / "none.toml", {variable: value})


def test_admins_are_numbers() -> None:
    assert TelegramSettings(admins="1, 22,333").admin_accounts == (1, 22, 333)
    assert TelegramSettings().admin_accounts == ()


def test_without_a_channel_it_says_so(home: Home, tmp_path: Path) -> None:
    done = _run(home, CRAFT_TELEGRAM_TOKEN_FILE=_token_file(tmp_path))
    assert done.returncode == 78 and "telegram.channel: is not set" in done.stderr


@pytest.mark.parametrize("missing", ["telegram", "apsw"])
def test_where_the_extra_is_missing_one_line_says_how_to_get_it(home: Home, tmp_path: Path, missing: str) -> None:
    hide = f"import sys; sys.modules[{missing!r}] = None; "
    env = {"CRAFT_TELEGRAM_TOKEN_FILE": _token_file(tmp_path), "CRAFT_TELEGRAM_CHANNEL": "@craft"}
    find = (
        "import importlib.util as u; f = u.find_spec; "
        f"u.find_spec = lambda name, *a: None if name == {missing!r} else f(name, *a); "
    )
    bot = "import sys; sys.argv = ['bot']; import craftd.bot.__main__ as m; m.main()"
    command = "import sys; from craft_cli.main import run; sys.exit(run(['bot', 'run']))"
    for program in (bot, command):
        done = _run(home, "-c", hide + find + program, **env)
        assert done.returncode == 69, done.stderr
        assert "python-telegram-bot" in done.stderr and "pip install 'craftengine[telegram]'" in done.stderr
        assert len(done.stderr.splitlines()) == 2 and not done.stdout


def test_a_bot_from_afar_needs_an_admins_key(home: Home, tmp_path: Path, make_home: Callable[..., Home]) -> None:
    """Through CRAFT_HOST, as any client."""

    there = make_home(CRAFT_DAEMON_LISTEN="127.0.0.1:0")
    process, said = spawn_and_wait(there)
    try:
        with grpc.insecure_channel(str(said["address"])) as channel:
            listen = daemon_pb2_grpc.DaemonStub(channel).GetStatus(daemon_pb2.GetStatusRequest()).listen
            made = keys_pb2_grpc.KeysStub(channel).CreateKey(keys_pb2.CreateKeyRequest(owner="user"))
        env = {
            "CRAFT_TELEGRAM_TOKEN_FILE": _token_file(tmp_path),
            "CRAFT_TELEGRAM_CHANNEL": "@craft",
            "CRAFT_HOST": listen,
        }
        for key, reason in (("", "a key is needed"), (made.secret, "not with a user key")):
            done = _run(home, CRAFT_API_KEY=key, **env)
            assert done.returncode == 77 and reason in done.stderr and (not key or key not in done.stderr)
            done = _run(home, "-P", "-m", "craft_cli.main", "bot", "run", CRAFT_API_KEY=key, **env)
            assert done.returncode == 77 and reason in done.stderr
    finally:
        process.kill()
        process.communicate()
