"""Telegram's moods: floods, 429, 409, 401, outages, updates twice; nothing is lost, nothing is done twice."""

from __future__ import annotations

import itertools
import signal
import sys
from typing import Any

import pytest

from tests.bot.place import ADMIN, PLENTY, Place, key_in, keys_shown, running
from tests.bot.telegram import BOT_ID, CHANNEL_ID, TOKEN, Fault, User


def test_it_asks_for_the_updates_that_it_needs_and_confirms_them_by_offset(place: Place, user: User) -> None:
    user.ask("/help")
    last = user.send("/help")
    place.telegram.until(lambda: place.telegram.offsets[-1] == last + 1, "the update is confirmed")
    assert place.telegram.pending() == []
    asked = place.telegram.called("getUpdates")[-1]
    assert asked["allowed_updates"] == '["message", "callback_query", "chat_member"]'
    assert (
        int(asked["timeout"]) >= 30
        and place.telegram.called("getUpdates")[0]["timeout"] == "0"
        and place.telegram.called("deleteWebhook")
    )


def test_a_429_is_waited_out_and_holds_up_nobody_else(place: Place, member: User) -> None:
    """The answer comes once, after what Telegram says; others are answered meanwhile."""
    other = place.user(member.account + 700_000)
    waiting = place.user(member.account + 710_000)
    before = len(place.telegram.messages)
    for account, wait_s in ((waiting, 3600), (member, 1)):
        place.telegram.fault(
            "sendMessage", Fault(429, "Too Many Requests: retry later", retry_after=wait_s, chat=account.account)
        )
        account.send("/key")
        place.telegram.until(lambda: not place.telegram._faults["sendMessage"], "the first try")
    other.send("/help")
    other.hears("This bot gives keys", before)
    assert not [one for one in place.telegram.messages[before:] if one.chat == waiting.account], "it waits still"
    key = key_in(member.hears("Your key.", before).text)
    assert place.works(key) == (200, "") and len(keys_shown(place.telegram)[key]) == 1


@pytest.mark.parametrize("is_late", [False, True])
@pytest.mark.parametrize("method", ["sendMessage", "editMessageText"])
@pytest.mark.parametrize("fault", [Fault(500, "Internal Server Error"), Fault(502, body=b"<html>no</html>")])
def test_a_call_that_fails_or_whose_answer_is_lost(
    place: Place, member: User, method: str, fault: Fault, is_late: bool
) -> None:
    """Whether Telegram did what it was asked or not, the key stands in one message."""
    place.telegram.fault(method, Fault(fault.code, fault.description, body=fault.body, is_late=is_late))
    key = place.gives(member.account)
    assert place.works(key) == (200, "") and len(keys_shown(place.telegram)[key]) == 1
    shown = [key for key, places in keys_shown(place.telegram).items() if places[0][0] == member.account]
    assert shown == [key]


def test_a_message_that_was_deleted_before_the_key_stood_in_it(place: Place, member: User) -> None:
    """Who knows what was read there: that key ends, and another one is shown."""

    def delete() -> None:
        place.telegram.said_to(member.account)[-1].is_deleted = True

    place.telegram.fault("editMessageText", Fault(500, "Internal Server Error", is_late=True, action=delete))
    member.send("/key")

    def shown_to() -> list[str]:
        return [key for key, places in keys_shown(place.telegram).items() if places[0][0] == member.account]

    place.telegram.until(lambda: len(shown_to()) == 2, "another key")
    shown, key = shown_to(), key_in(member.inbox[-1].text)
    assert key == shown[1]
    assert place.works(shown[0]) == (401, "UNAUTHENTICATED") and place.works(key) == (200, "")


def test_who_has_blocked_the_bot_gets_the_key_later(place: Place, member: User) -> None:
    place.telegram.blocked.add(member.account)
    place.user(member.account + 800_000).send("/help")
    member.send("/key")
    place.telegram.until(lambda: place.telegram.pending() == [], "the update is taken")
    assert place.user(member.account + 800_000).ask("/help")
    assert place.key(member.account) is None
    place.telegram.blocked.remove(member.account)
    assert place.works(place.gives(member.account)) == (200, "")


def test_updates_that_come_twice_are_done_once(place: Place, member: User) -> None:
    update = {"message": member.message("/help")}
    before = len(place.telegram.messages)
    number = place.telegram.put(update)
    member.hears("This bot gives keys", before)
    for _ in range(3):
        place.telegram.put(update, number)
    place.telegram.put_raw({"update_id": number, **update}, {"update_id": number, **update})
    member.ask("/status")
    said = [one for one in place.telegram.messages[before:] if one.chat == member.account]
    assert len(said) == 2


def test_numbers_that_begin_anew_are_followed(place: Place, user: User) -> None:
    """Telegram may choose another number after a week without updates, a lower one, too."""
    lower = itertools.count(1000 + user.account % 100_000)
    for _ in range(2):
        before = len(place.telegram.messages)
        place.telegram.put({"message": user.message("/help")}, next(lower))
        user.hears("This bot gives keys", before)
    assert user.ask("/help").text


def test_a_flood_by_one_account_is_dropped_and_told_once() -> None:
    with running(PLENTY.partition("[telegram]")[0], CRAFT_TELEGRAM_COMMANDS_PER_MINUTE="5") as place:
        place.start()
        flooder, other = place.user(11), place.user(12)
        for _ in range(300):
            flooder.send("/help")
        last = other.send("/help")
        other.hears("This bot gives keys")
        place.telegram.until(lambda: place.telegram.offsets[-1] > last, "all updates are taken")
        place.telegram.until(lambda: len(flooder.inbox) == 6, "five answers and a word about the others")
        other.ask("/status")
        told = [one.text[:20] for one in flooder.inbox]
        assert len(told) == 6 and sum("That is a lot" in one for one in told) == 1
        for _ in range(20):
            flooder.leave()  # what Telegram itself tells is no command of anybody's
        assert place.works(place.gives(12)) == (200, "")


def test_two_pollers_are_told_of_and_the_bot_goes_on() -> None:
    with running() as place:
        place.telegram.fault("getUpdates", *[Fault(409, "Conflict: terminated by other getUpdates request")] * 2)
        bot = place.start()
        place.user(ADMIN).hears("Somebody else uses my token")
        assert place.works(place.gives(21)) == (200, "")
        place.telegram.until(lambda: "alone receives its updates again" in bot.output, "it says that that is over")
        assert bot.output.count("somebody else receives this bot's updates") == 1


def test_a_token_that_is_revoked_ends_it_and_is_not_told() -> None:
    with running() as place:
        bot = place.start()
        key = place.gives(31)
        place.telegram.token = "another"
        place.telegram.fail_all(Fault(401, "Unauthorized"))
        place.user(31).send("/help")
        assert bot.wait() == 77
        assert "does not take the token in" in bot.output and "BotFather" in bot.output
        assert TOKEN not in bot.output and key not in bot.output and "Traceback" not in bot.output
        assert place.works(key) == (200, ""), "the daemon goes on"


def test_an_outage_of_hours_costs_nobody_anything() -> None:
    with running() as place:
        bot = place.start()
        key = place.gives(41)
        place.telegram.fail_all(Fault(502, body=b"<html>Bad Gateway</html>"))
        failed = len(place.telegram.calls)
        place.telegram.until(lambda: len(place.telegram.calls) > failed + 2, "it tries again")
        for account in (41, 42):
            place.user(account).becomes("member", is_told=False)
            place.user(account).send("/key")
        place.user(41).leave()
        assert place.works(key) == (200, "")
        place.telegram.fail_all(None)
        assert place.works(key_in(place.user(42).hears("Your key.").text)) == (200, "")
        place.awaits(41, "suspended")
        assert bot.process.poll() is None


def test_a_restart_answers_what_came_meanwhile_and_nothing_again() -> None:
    with running() as place:
        bot = place.start()
        key = place.gives(51)
        bot.kill()
        place.user(51).send("/status")
        place.user(51).leave()
        before = len(place.telegram.messages)
        place.start()
        place.user(51).hears("is active", before)
        place.awaits(51, "suspended")
        assert len(place.telegram.messages) == before + 1 and place.works(key) == (403, "KEY_SUSPENDED")


def test_the_command_runs_it_and_no_log_holds_a_secret() -> None:
    """In the foreground, until Ctrl-C; not even in the most talkative log."""
    with running(CRAFT_DAEMON_LOG_LEVEL="debug") as place:
        bot = place.start(sys.executable, "-P", "-m", "craft_cli.main", "bot", "run")
        key = place.gives(71)
        place.telegram.fault("sendMessage", Fault(400, f"Bad Request: {key} {TOKEN}"))
        place.user(71).send("/help")
        place.user(71).ask("/status")
        bot.process.send_signal(signal.SIGINT)
        assert bot.wait() == 0
        log = bot.output + place.shim.home.log
        assert "the bot is up" in log and "Telegram refused an answer" in log and "debug" in log
        assert TOKEN not in log and TOKEN.partition(":")[2] not in log
        assert key not in log and key[17:] not in log


def test_one_bot_to_a_data_folder() -> None:
    with running() as place:
        first = place.start()
        place.user(61).ask("/help")
        second = place.start()
        assert second.wait() == 75 and "runs already" in second.output
        assert place.user(61).ask("/help") and first.process.poll() is None
        assert first.stop() == 0


MALFORMED = [
    {"update_id": "x"},
    {"message": {"text": "/key"}},
    None,
    17,
    "text",
    [],
    {},
    {"update_id": 2**80, "message": {}},
    {"update_id": -5},
    {"update_id": True},
]


def test_malformed_updates_take_no_other_along(place: Place, member: User) -> None:
    before = len(place.telegram.messages)
    bad: list[dict[str, Any]] = [
        {"message": {"message_id": 1}},
        {"message": {"message_id": 1, "date": 0, "chat": {"id": 1, "type": "private"}, "text": "/key"}},
        {"message": {"message_id": "x", "date": "y", "chat": 5, "from": 7, "text": 9}},
        {"message": {**member.message("/key"), "from": {**member.person(), "id": 2**70}}},
        {"message": {**member.message("/key"), "date": 10**30}},
        {"message": {**member.message("/key"), "from": {**member.person(), "is_bot": True}}},
        {"message": {**member.message("x"), "text": "/draw " + "\ud800 \u202e" * 10}},
        {"chat_member": {}},
        {"chat_member": {**member.changed("left")["chat_member"], "new_chat_member": {"status": "left"}}},
        {"chat_member": {**member.changed("left")["chat_member"], "chat": {"id": CHANNEL_ID, "type": "channel"}}},
        {"callback_query": {"id": "1", "from": member.person(), "chat_instance": "1", "data": "replace:x"}},
        {"callback_query": {"id": "1", "from": member.person(), "chat_instance": "1", "data": "x" * 5000}},
        {"callback_query": {"id": str(BOT_ID)}},
        {"my_chat_member": {}, "poll": []},
    ]
    for update in bad:
        place.telegram.put(update)
    place.telegram.put_raw(*MALFORMED)
    place.telegram.put({"message": member.message("/key")})
    key = key_in(member.hears("Your key.", before).text)
    assert place.works(key) == (200, "")
    member.ask("/status")
    left = [one for one in place.telegram.pending() if one["update_id"] < 2**53]
    assert not left
    place.telegram.drop_pending()
