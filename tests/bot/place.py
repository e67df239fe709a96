"""A real daemon that serves HTTP, a Bot API server, and bots as processes of their own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from craft_protos import keys_pb2

from tests.bot.telegram import CHANNEL, TOKEN, Telegram, User, serving
from tests.daemon.harness import spawn_and_wait
from tests.home import HANG_S
from tests.http.again import free_port
from tests.http.shim import Shim
from tests.http.shim import serving as daemon_serving

ADMIN = 99
PLENTY = (
    "[tiers.default]\nrequests_per_minute = 1000000\nimages_in_flight = 10000\nqueue_share = 1.0\n"
    "[telegram]\ncommands_per_minute = 10000\n"
)


@dataclass
class Place:
    shim: Shim
    telegram: Telegram
    bots: list[Running] = field(default_factory=list)
    daemons: list[subprocess.Popen[bytes]] = field(default_factory=list)  # after the first

    @property
    def env(self) -> dict[str, str]:
        return self.shim.home.env

    def user(self, account: int) -> User:
        return self.telegram.user(account)

    def key(self, account: int) -> keys_pb2.Key | None:
        try:
            return self.shim.keys.GetKey(keys_pb2.GetKeyRequest(key=f"telegram:{account}"))
        except grpc.RpcError:
            return None

    def state(self, account: int) -> str:
        key = self.key(account)
        return "none" if key is None else keys_pb2.KeyState.Name(key.state).removeprefix("KEY_STATE_").lower()

    def awaits(self, account: int, state: str) -> None:
        self.telegram.until(lambda: self.state(account) == state, f"{account} is {state}")

    def works(self, key: str) -> tuple[int, str]:
        """(status, reason) of a request with the key."""
        answer = self.shim.call("GET", "/choices", key)
        return answer.status_code, answer.json().get("code", "")

    def gives(self, account: int) -> str:
        """A member's key, from the bot."""
        user = self.user(account)
        user.becomes("member", is_told=False)
        before = len(self.telegram.messages)
        user.send("/key")
        return key_in(user.hears("Your key.", before).text)

    def start(self, *command: str, **env: str) -> Running:
        """A bot, in the foreground. Without a command of a test's own: `craftd.bot`."""
        bot = Running(command or (sys.executable, "-m", "craftd.bot"), self.env | env)
        self.bots.append(bot)
        return bot

    def kill_daemon(self) -> None:
        self.shim.process.kill()
        self.shim.process.wait()

    def start_daemon(self) -> None:
        process, said = spawn_and_wait(self.shim.home)
        self.daemons.append(process)
        self.shim.process = process
        assert said.get("ready"), said


class Running:
    """A bot's process, and all that it writes."""

    def __init__(self, command: tuple[str, ...], env: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.lines: list[str] = []
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    @property
    def output(self) -> str:
        return "".join(self.lines)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGKILL)
        self.wait()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        code = self.process.wait(HANG_S)
        self._thread.join()
        return code

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as stream:
            self.lines.extend(stream)


@contextlib.contextmanager
def running(config: str = PLENTY, *, supervised: bool = False, **settings: str) -> Iterator[Place]:
    """All of it, ended however the test goes; the bot is the daemon's, or the test's to start."""
    with serving() as telegram, _token_file() as token_file:
        usual = {
            "CRAFT_HTTP_LISTEN": f"127.0.0.1:{free_port()}",
            "CRAFT_TELEGRAM_ENABLED": "true" if supervised else "false",
            "CRAFT_TELEGRAM_TOKEN_FILE": str(token_file),
            "CRAFT_TELEGRAM_CHANNEL": CHANNEL,
            "CRAFT_TELEGRAM_API_URL": telegram.url,
            "CRAFT_TELEGRAM_ADMINS": str(ADMIN),
        }
        with daemon_serving(config, **{**usual, **settings}) as shim:
            place = Place(shim, telegram)
            try:
                yield place
            finally:
                telegram.end()
                for bot in place.bots:
                    bot.kill()
                for process in place.daemons:
                    process.kill()
                    process.communicate()


@contextlib.contextmanager
def _token_file() -> Iterator[Path]:
    import tempfile

    with tempfile.TemporaryDirectory(prefix="craft-t-") as folder:
        path = Path(folder) / "token"
        path.touch(0o600)
        path.write_text(TOKEN + "\n")
        yield path


def key_in(text: str) -> str:
    """The key that a message shows."""
    return next(line for line in text.splitlines() if line.startswith("craft_"))


def keys_shown(telegram: Telegram) -> dict[str, list[tuple[int, int]]]:
    """Every key that ever stood in a message -> the messages."""
    import re

    shown: dict[str, list[tuple[int, int]]] = {}
    for message in telegram.messages:
        for text in message.shown:
            for key in set(re.findall(r"craft_[0-9a-z]{10}_[0-9a-z]{59}", text)):
                places = shown.setdefault(key, [])
                if (message.chat, message.id) not in places:
                    places.append((message.chat, message.id))
    return shown


def secrets_in(text: str, *secrets: str) -> list[str]:
    return [one for one in secrets if one in text]


def pid_of(status: Any) -> int:
    return int(status.bot.pid)


def kill_pid(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
