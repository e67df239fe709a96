"""The whole story of an account, and again with kill -9 of bot and daemon at each step of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from tests.bot.place import ADMIN, Place, key_in, keys_shown, running
from tests.bot.telegram import Fault, User


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    """The daemon keeps the bot running."""
    with running(supervised=True) as one:
        yield one


class Story:
    """One account's. `disturb` is called when a step has begun: when its update is on its way."""

    def __init__(self, place: Place, account: int, disturb: Callable[[], None]) -> None:
        self.place = place
        self.user = place.user(account)
        self._disturb = disturb
        self.key = ""

    def run(self) -> None:
        self._is_no_member()
        self._joins()
        self._has_a_key()
        self._draws()
        self._leaves()
        self._returns()
        self._replaces()
        self._is_banned()
        self._has_a_new_name()

    def _is_no_member(self) -> None:
        before = self._say("/key")
        self.user.hears("Become a member", before)
        assert self.place.key(self.user.account) is None

    def _joins(self) -> None:
        self.user.join()
        self._disturb()

    def _has_a_key(self) -> None:
        before = self._say("/key")
        message = self.user.hears("Your key.", before)
        self.key = key_in(message.text)
        assert message.is_protected
        self._awaits(200, "")

    def _draws(self) -> None:
        body = {"model": "flat", "prompt": "an apple", "image_count": 2, "steps": 1, "token": self.key}
        answer = self.place.shim.call("POST", "/generate", json=body)
        assert answer.status_code == 200 and len(answer.json()) == 2

    def _leaves(self) -> None:
        self.user.leave()
        self._disturb()
        self._awaits(403, "KEY_SUSPENDED")

    def _returns(self) -> None:
        self.user.join()
        self._disturb()
        self._awaits(200, "")
        self._draws()

    def _replaces(self) -> None:
        before, old = self._say("/replace"), self.key
        question = self.user.hears("Make a new key?", before)
        before = len(self.place.telegram.messages)
        self.user.press(question, "Yes, a new key")
        self._disturb()
        self.key = key_in(self.user.hears("Your key.", before).text)
        self._awaits(200, "")
        assert self.place.works(old) == (401, "UNAUTHENTICATED")

    def _is_banned(self) -> None:
        self.place.user(ADMIN).send(f"/ban {self.user.account}")
        self._disturb()
        self._awaits(403, "KEY_BANNED")
        self.user.leave()
        self.user.join()
        before = self._say("/key")
        self.user.hears("is banned", before)
        self._awaits(403, "KEY_BANNED")

    def _has_a_new_name(self) -> None:
        before = len(self.place.telegram.messages)
        User(self.place.telegram, self.user.account, "Another Name").send("/key")
        self._disturb()
        self.user.hears("is banned", before)
        self._awaits(403, "KEY_BANNED")
        shown = [
            (key, places)
            for key, places in keys_shown(self.place.telegram).items()
            if places[0][0] == self.user.account
        ]
        assert len(shown) == 2 and all(len(places) == 1 for _, places in shown)

    def _say(self, text: str) -> int:
        """How many messages there were before."""
        before = len(self.place.telegram.messages)
        self.user.send(text)
        self._disturb()
        return before

    def _awaits(self, status: int, reason: str) -> None:
        self.place.telegram.until(lambda: self._works() == (status, reason), f"{status} {reason}")

    def _works(self) -> tuple[int, str]:
        try:
            return self.place.works(self.key)
        except OSError:  # the daemon is being started again
            return 0, ""


def _await_bot(place: Place) -> int:
    def pid() -> int:
        bot = place.shim.status().bot
        return int(bot.pid) if bot.username else 0

    return int(place.telegram.until(pid, "the bot runs"))


def test_the_whole_story_of_an_account(place: Place) -> None:
    Story(place, 3_000_001, lambda: None).run()


@pytest.fixture(scope="module")
def bare() -> Iterator[Place]:
    """A daemon without a bot: a test starts its own, again and again, without the daemon's patience."""
    with running() as one:
        yield one


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("method", ["getUpdates", "sendMessage", "editMessageText", "getChatMember"])
def test_the_same_with_kill_9_of_the_bot_at_each_step(bare: Place, method: str) -> None:
    """While Telegram answers: at the next call of that kind, when it has had its effect."""

    lock, is_over = threading.Lock(), threading.Event()

    def kill() -> None:
        with lock:
            bare.bots[-1].kill()
            if not is_over.is_set():
                bare.start()

    def disturb() -> None:
        bare.telegram.fault(method, Fault(500, "Internal Server Error", is_late=True, action=kill))

    bare.start()
    try:
        Story(bare, 3_000_100 + len(method), disturb).run()
    finally:
        is_over.set()
        bare.telegram.forgive()
        with lock:
            bare.bots[-1].kill()
    assert len(bare.bots) > 2


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_same_with_kill_9_of_the_daemon_at_each_step(place: Place) -> None:
    def disturb() -> None:
        place.kill_daemon()
        place.start_daemon()
        _await_bot(place)

    Story(place, 3_000_200, disturb).run()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_same_with_kill_9_of_the_daemon_below_a_bot_of_its_own(bare: Place) -> None:
    """The bot waits for the daemon that is away, whatever it was about to ask it."""

    def disturb() -> None:
        bare.kill_daemon()
        bare.start_daemon()

    bot = bare.start()
    Story(bare, 3_000_300, disturb).run()
    assert bot.process.poll() is None
