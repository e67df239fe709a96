"""What waits for the engine's thread."""

from __future__ import annotations

import threading

import pytest
from craftd.worker.process import inbox as inboxes
from craftd.worker.process.inbox import Inbox


class Clock:
    """Stands still until it is set."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def long_heels(monkeypatch: pytest.MonkeyPatch) -> None:
    """So long that a test which waits them out is seen to hang."""
    monkeypatch.setattr(inboxes, "COALESCE_S", 3600.0)


def test_what_is_there_is_taken_without_waiting_for_more() -> None:
    inbox = Inbox(Clock())
    for mail in ("first", "second"):
        inbox.post(mail)
    assert list(inbox.wait(3600.0)) == ["first", "second"]
    assert list(Inbox(Clock()).wait(0.0)) == []


def test_what_follows_on_the_heels_of_the_first_is_waited_for() -> None:
    inbox = Inbox(Clock())
    inbox.post("first")
    assert list(inbox.wait(None)) == ["first"]
    following, taken = inbox.following(), list[object]()
    taker = threading.Thread(target=lambda: taken.append(next(following)))
    taker.start()
    inbox.post("second")
    taker.join()
    assert taken == ["second"]


def test_work_done_meanwhile_is_no_time_lost() -> None:
    clock = Clock()
    inbox = Inbox(clock)
    inbox.post("first")
    assert list(inbox.wait(None)) == ["first"]
    clock.now += inboxes.COALESCE_S
    inbox.post("second")
    assert list(inbox.following()) == ["second"]


def test_where_nothing_was_waited_for_nothing_follows() -> None:
    assert list(Inbox(Clock()).following()) == []
