"""What waits for the engine's thread."""

from __future__ import annotations

import threading
import time

from craftd.worker.inbox import COALESCE_S, Inbox


def test_what_is_there_is_taken_without_waiting_for_more() -> None:
    inbox = Inbox()
    for mail in ("first", "second"):
        inbox.post(mail)
    began = time.monotonic()
    assert list(inbox.wait(10)) == ["first", "second"]
    assert time.monotonic() - began < 5  # not the timeout
    assert list(Inbox().wait(0.01)) == []


def test_what_follows_on_the_heels_of_the_first_is_taken_with_it() -> None:
    inbox = Inbox()
    inbox.post("first")
    assert list(inbox.wait(10)) == ["first"]
    began = time.monotonic()
    follower = threading.Thread(target=inbox.post, args=("second",))
    follower.start()
    assert list(inbox.following()) == ["second"]
    assert time.monotonic() - began >= COALESCE_S / 2  # it looked out for more
    follower.join()


def test_work_done_meanwhile_is_no_time_lost() -> None:
    inbox = Inbox()
    inbox.post("first")
    list(inbox.wait(10))
    time.sleep(COALESCE_S)
    inbox.post("second")
    following = inbox.following()
    assert next(following) == "second"
    assert list(following) == []
    assert list(Inbox().following()) == []  # where nothing was waited for
