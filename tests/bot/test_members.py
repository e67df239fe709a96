"""Membership: followed by updates, gone through for what they missed; errors and lost rights change nothing."""

from __future__ import annotations

import time

from tests.bot.place import ADMIN, PLENTY, Place, running
from tests.bot.telegram import BOT_ID, Fault, User

_OFTEN = PLENTY + "sweep_every_s = 1\n"


def _settled(place: Place, user: User) -> None:
    """The bot has done all that came before."""
    user.ask("/status")


def test_leaving_suspends_and_coming_back_resumes_the_same_key(place: Place, member: User, key: str) -> None:
    for status in ("left", "kicked"):
        member.becomes(status)
        place.telegram.until(lambda: place.works(key) == (403, "KEY_SUSPENDED"), "the key is refused")
        assert "not a member" in member.ask("/status").text
        member.becomes("member")
        place.telegram.until(lambda: place.works(key) == (200, ""), "the same key works")


def test_who_is_restricted_is_a_member_or_not(place: Place, member: User, key: str) -> None:
    member.becomes("restricted", is_member=True)
    _settled(place, member)
    assert place.works(key) == (200, "")
    member.becomes("restricted", is_member=False)
    place.awaits(member.account, "suspended")
    member.becomes("administrator")
    place.awaits(member.account, "active")


def test_updates_delivered_twice_or_out_of_order(place: Place, member: User, key: str) -> None:
    """The newest by Telegram's own date counts."""
    now = int(time.time())
    member.becomes("member", date=now)
    place.telegram.put(member.changed("left", date=now - 5))  # late
    _settled(place, member)
    assert place.works(key) == (200, "")
    twice = member.changed("left", date=now + 1)
    member.telegram.status_of(member.account, "left")
    number = place.telegram.put(twice)
    place.awaits(member.account, "suspended")
    member.becomes("member", date=now + 2)
    place.awaits(member.account, "active")
    place.telegram.put(twice, number)  # the very same, once more
    place.telegram.put(twice)  # and with another number
    _settled(place, member)
    assert place.works(key) == (200, "")


def test_an_old_update_is_not_believed_unasked(place: Place, member: User, key: str) -> None:
    """After an outage of hours a `left` may be followed by a return that Telegram no longer has."""
    place.telegram.put(member.changed("left", date=int(time.time()) - 7200))
    _settled(place, member)
    assert place.works(key) == (200, ""), "Telegram says that the account is a member"
    member.telegram.status_of(member.account, "left")
    place.telegram.put(member.changed("left", date=int(time.time()) - 3600))
    place.awaits(member.account, "suspended")


def test_updates_of_other_channels_and_of_bots_are_nobodys(place: Place, member: User, key: str) -> None:
    update = member.changed("left")
    update["chat_member"]["chat"] = {"id": -100999, "type": "channel", "title": "x", "username": "other"}
    place.telegram.put(update)
    update = member.changed("left")
    update["chat_member"]["new_chat_member"]["user"]["is_bot"] = True
    place.telegram.put(update)
    _settled(place, member)
    assert place.works(key) == (200, "")


def test_errors_change_nothing_and_nobody_is_taken_for_a_member(place: Place, member: User, key: str) -> None:
    member.telegram.status_of(member.account, "left")
    unavailable = [Fault(500, "Internal Server Error"), Fault(502, body=b"<html>bad gateway</html>")]
    place.telegram.fault("getChatMember", *unavailable, Fault(504, "Gateway Timeout"))
    assert "is active" in member.ask("/key").text and place.works(key) == (200, "")
    other = place.user(member.account + 600_000)
    other.becomes("member", is_told=False)
    place.telegram.fault("getChatMember", *unavailable, Fault(504, "Gateway Timeout"))
    assert "does not tell me now" in other.ask("/key").text and place.key(other.account) is None


def test_a_bot_that_is_no_admin_changes_nothing_and_says_so_once() -> None:
    """When it is an admin again, what was missed is made up for at once."""
    with running() as place:
        bot = place.start()
        key, user = place.gives(501), place.user(501)
        other = place.gives(502)
        place.telegram.until(lambda: "went through all keys" in bot.output, "the first sweep")
        for status in ("member", "left"):
            place.telegram.bot_status = status
            user.telegram.status_of(501, "left")
            assert "is active" in user.ask("/key").text and place.works(key) == (200, "")
        alarms = [one.text for one in place.telegram.said_to(ADMIN)]
        assert len(alarms) == 1 and "I change nothing" in alarms[0]
        assert bot.output.count("the channel's members are not known") == 1
        place.telegram.bot_status = "administrator"
        assert "Become a member" in user.ask("/key").text
        place.user(ADMIN).hears("going through all keys now")
        place.awaits(501, "suspended")
        assert place.works(other) == (200, "")


def test_a_left_of_a_bot_without_rights_is_worth_nothing() -> None:
    with running() as place:
        place.start()
        key, user = place.gives(511), place.user(511)
        place.telegram.bot_status = "member"
        place.telegram.tells_anybody = True
        user.telegram.status_of(511, "left")
        assert "is active" in user.ask("/key").text and place.works(key) == (200, "")
        place.user(ADMIN).hears("I am no admin")


def test_the_sweep_finds_what_updates_missed() -> None:
    with running(_OFTEN) as place:
        place.start()
        keys = {account: place.gives(account) for account in (601, 602, 603)}
        place.user(602).becomes("left", is_told=False)
        place.awaits(602, "suspended")
        assert place.works(keys[601]) == (200, "") == place.works(keys[603])
        place.user(602).becomes("member", is_told=False)
        place.awaits(602, "active")
        place.telegram.fail_all(Fault(500, "Internal Server Error"))
        place.user(603).becomes("left", is_told=False)
        failed = len(place.telegram.called("getChatMember"))
        place.telegram.until(lambda: len(place.telegram.called("getChatMember")) > failed + 1, "it asks in vain")
        assert {place.works(key) for key in keys.values()} == {(200, "")}
        place.telegram.fail_all(None)
        place.awaits(603, "suspended")


def test_the_sweep_goes_on_where_it_was_killed() -> None:
    accounts = range(700, 740)
    with running(_OFTEN) as place:
        bot = place.start()
        for account in accounts:
            place.gives(account)
        bot.kill()

        def asked() -> list[int]:
            found = [int(one["user_id"]) for one in place.telegram.called("getChatMember")]
            return [account for account in found if account != BOT_ID]

        bot = place.start()
        place.telegram.on_asked[730] = bot.kill  # after most of a sweep
        assert bot.wait() != 0
        place.telegram.calls.clear()
        place.start()
        place.telegram.until(lambda: 739 in asked(), "its end")
        first = asked().index(739)
        assert asked()[0] > 700 and len(asked()[: first + 1]) <= 21, "every twentieth is remembered"


def test_a_number_stands_for_a_channel_too() -> None:
    with running(
        PLENTY, CRAFT_TELEGRAM_CHANNEL="-1001234567890", CRAFT_TELEGRAM_INVITE_URL="https://t.me/+abc"
    ) as place:
        place.start()
        user = place.user(801)
        assert "https://t.me/+abc" in user.ask("/key").text
        key = place.gives(801)
        user.leave()
        place.telegram.until(lambda: place.works(key) == (403, "KEY_SUSPENDED"), "the key is refused")
