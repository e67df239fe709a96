"""kill -9 of the bot at every step of a key's way: no key is made twice, none is lost, none is shown twice."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bot.place import Place, Running, key_in, keys_shown, running
from tests.bot.telegram import Message, User

_ROOT = str(Path(__file__).parents[2])
_MOST_STEPS = 60


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    """Without a bot: each test starts its own."""
    with running() as one:
        yield one


class Crashes:
    """One bot a step: it finishes what the one before has left, and then dies at its own step."""

    def __init__(self, place: Place, kind: str, first: int) -> None:
        self.place = place
        self._kind = kind
        self._first = first
        self._old: dict[int, str] = {}

    def run(self, *, replaces: bool) -> int:
        """How many steps there were: the last bot finds none left to die at."""
        for step in range(_MOST_STEPS):
            bot = self._start(step)
            if step:
                self._check_settled(self.place.user(self._first + step - 1))
            user = self.place.user(self._first + step)
            user.becomes("member", is_told=False)
            self._begin(user, replaces=replaces)
            self.place.telegram.until(
                lambda bot=bot, user=user: bot.process.poll() is not None or self._shown(user), "an end"
            )
            if bot.process.poll() is None and self._is_done(bot, user):
                self._check_settled(user)
                assert bot.stop() == 0
                return step
            assert bot.wait() == -signal.SIGKILL
        raise AssertionError("more steps than anybody thought of")

    def _start(self, step: int) -> Running:
        command = (sys.executable, "-m", "tests.bot.crashing", str(step), self._kind, str(self._first + step))
        return self.place.start(*command, PYTHONPATH=_ROOT)

    def _begin(self, user: User, *, replaces: bool) -> None:
        if not replaces:
            user.send("/key")
            return
        self._old[user.account] = self._given(user)
        user.press(user.ask("/replace"), "Yes, a new key")

    def _given(self, user: User) -> str:
        """A first key, whose way is not counted."""
        return self.place.gives(user.account)

    def _shown(self, user: User) -> list[Message]:
        """Messages with keys, but for the one that is to be replaced."""
        old = self._old.get(user.account, "none")
        return [one for one in user.inbox if "Your key." in one.text and old not in one.text]

    def _is_done(self, bot: Running, user: User) -> bool:
        """One account's commands are done one after the other: an answer to another one says that this is done."""
        before = len(self.place.telegram.messages)
        user.send("/status")
        self.place.telegram.until(
            lambda: bot.process.poll() is not None or "is active" in "".join(_texts(user, before)),
            "an answer, or an end",
        )
        return bot.process.poll() is None

    def _check_settled(self, user: User) -> None:
        """One message with one key, which is the only one and works; asked again, nothing more is shown."""
        telegram = self.place.telegram
        (message,) = telegram.until(lambda: self._shown(user), f"a key for {user.account}")
        key = key_in(message.text)
        assert message.is_protected and self.place.works(key) == (200, "")
        assert keys_shown(telegram)[key] == [(user.account, message.id)]
        before = len(telegram.messages)
        user.send("/status")
        user.hears("is active", before)
        assert len(self._shown(user)) == 1
        stored = [path.read_bytes() for path in self.place.shim.home.paths.data_dir.iterdir() if path.is_file()]
        assert not [one for one in stored if key.encode() in one], "the bot's copy is wiped"
        if old := self._old.get(user.account):
            assert self.place.works(old) == (401, "UNAUTHENTICATED"), "the old one has ended"


def _texts(user: User, after: int) -> list[str]:
    return [one.text for one in user.telegram.messages[after:] if one.chat == user.account]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_killed_at_every_step_of_a_first_key(place: Place) -> None:
    assert Crashes(place, "key", 9_100_000).run(replaces=False) >= 15


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_killed_at_every_step_of_a_replacement(place: Place) -> None:
    assert Crashes(place, "button", 9_200_000).run(replaces=True) >= 15
