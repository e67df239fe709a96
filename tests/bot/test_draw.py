"""/draw: off unless asked for; a picture as a reply, within the caller's own quota."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest
from PIL import Image

from tests.bot.place import PLENTY, Place, running
from tests.bot.telegram import GROUP, Fault, Message, User

QUOTA = PLENTY.replace("images_in_flight = 10000", "images_in_flight = 1")


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with running(QUOTA, CRAFT_TELEGRAM_DRAW="true", CRAFT_WORKER_MAX_ROWS="4") as one:
        one.start()
        yield one


def _pictures(place: Place, chat: int) -> list[Message]:
    return [one for one in place.telegram.said_to(chat) if one.picture]


def _asks(place: Place, user: User, prompt: str, chat: int | None = None) -> Message:
    """The message that says that it is drawn."""
    before = len(place.telegram.messages)
    user.send(f"/draw {prompt}", chat=chat)
    where = chat or user.account

    def begun() -> list[Message]:
        return [one for one in place.telegram.messages[before:] if one.chat == where and one.text == "Drawing."]

    found: list[Message] = place.telegram.until(begun, "it is begun")
    return found[0]


def test_a_picture_comes_as_a_reply_and_is_the_callers_own(place: Place, member: User, key: str) -> None:
    prompt = member.message("/draw a red <b>apple</b> _on_ a `table`")
    place.telegram.put({"message": prompt})
    (picture,) = place.telegram.until(lambda: _pictures(place, member.account), "a picture")
    assert Image.open(io.BytesIO(picture.picture)).size == (64, 64) and picture.reply_to == prompt["message_id"]
    assert picture.text.startswith("Seed ")
    mine = place.shim.call("GET", "/images", key).json()["images"]
    assert [one["prompt"] for one in mine] == ["a red <b>apple</b> _on_ a `table`"]
    place.telegram.until(lambda: "Drawing." not in [one.text for one in member.inbox], "its progress goes")
    assert "kept: 1" in member.ask("/status").text


def test_in_a_group_too_by_whoever_has_a_key(place: Place, member: User, key: str) -> None:
    _asks(place, member, "an apple", chat=GROUP)
    place.telegram.until(lambda: _pictures(place, GROUP), "a picture in the group")


def test_the_callers_quota_holds(place: Place, member: User, key: str) -> None:
    begun = _asks(place, member, "[held] apple")
    before = len(place.telegram.messages)
    member.send("/draw another apple")
    assert "images in flight" in member.hears("No picture", before).text
    assert "Pictures being drawn: 1 of 1" in member.ask("/status").text
    stranger = place.user(member.account + 100_000)
    answered = len(place.telegram.answers)
    stranger.press(begun, "Cancel", by=stranger)
    place.telegram.until(lambda: len(place.telegram.answers) > answered, "the stranger is answered")
    assert place.telegram.answers[-1][1] == "Only who asked for it can cancel it."
    assert "Pictures being drawn: 1 of 1" in member.ask("/status").text
    member.press(begun, "Cancel")
    member.hears("Cancelled.")
    place.telegram.until(lambda: "0 of 1" in member.ask("/status").text, "nothing is drawn any more")
    assert not _pictures(place, member.account)
    answered = len(place.telegram.answers)
    member.press(begun, "Cancel")
    place.telegram.until(lambda: len(place.telegram.answers) > answered, "too late")
    assert place.telegram.answers[-1][1] == "It has ended already."


def test_who_has_no_working_key_draws_nothing(place: Place, member: User) -> None:
    assert "You have no key" in member.ask("/draw an apple").text
    place.gives(member.account)
    member.leave()
    place.awaits(member.account, "suspended")
    assert "not a member" in member.ask("/draw an apple").text
    assert not _pictures(place, member.account)


def test_what_cannot_be_drawn_is_told(place: Place, member: User, key: str) -> None:
    assert "/draw PROMPT" in member.ask("/draw").text
    before = len(place.telegram.messages)
    member.send("/draw a [fail] apple")
    assert "No picture" in member.hears("No picture", before).text
    before = len(place.telegram.messages)
    member.send("/draw apple <lora:nothing-of-that-name:1>")
    assert "nothing-of-that-name" in member.hears("No picture", before).text


def test_it_is_off_by_default() -> None:
    with running() as other:
        other.start()
        user = other.user(1)
        assert "draws no pictures" in user.ask("/draw an apple").text and "/draw" not in user.ask("/help").text


def test_a_picture_outlives_kill_9_of_the_bot(place: Place, member: User, key: str) -> None:
    """At each moment: while it is drawn, when it is sent; a prompt that was not passed on is asked for again."""
    _asks(place, member, "[held] apple")
    place.bots[-1].kill()
    place.shim.home.release()
    place.start()
    place.telegram.until(lambda: len(_pictures(place, member.account)) == 1, "the picture")
    place.telegram.fault("sendPhoto", Fault(500, action=place.bots[-1].kill))
    member.send("/draw a second apple")
    assert place.bots[-1].wait() != 0
    place.start()
    place.telegram.until(lambda: len(_pictures(place, member.account)) == 2, "the second picture")
    assert "kept: 2" in member.ask("/status").text
