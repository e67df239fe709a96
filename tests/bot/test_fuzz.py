"""Whatever comes as an update: nothing falls over, nobody gets what is not theirs, the next one is answered."""

from __future__ import annotations

from typing import Any

from craftd.bot.task import COMMANDS, KEY, PROMPT, Asked, Membership, asked_of, update_id_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from telegram import Bot, User

from tests.bot.place import Place, keys_shown
from tests.bot.telegram import BOT_ID, CHANNEL, CHANNEL_ID, TOKEN, USERNAME
from tests.bot.telegram import User as Person

_ME = User(BOT_ID, "craft", is_bot=True, username=USERNAME)
_BOT = Bot(TOKEN)
_SLOW = (HealthCheck.function_scoped_fixture, HealthCheck.too_slow)
_SAFE = (TypeError, ValueError, AttributeError, LookupError, OverflowError, OSError)  # what the bot expects of them

_leaf = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=40)
_json = st.recursive(
    _leaf, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)
_number = st.integers(-(2**64), 2**64)
_user = st.fixed_dictionaries(
    {"id": _number | _leaf, "is_bot": st.booleans() | _leaf, "first_name": st.text(max_size=20) | _leaf},
    optional={"username": st.text(max_size=10)},
)
_kind = st.sampled_from(["private", "group", "channel", "x"])
_chat = st.fixed_dictionaries(
    {
        "id": _number | st.just(CHANNEL_ID) | _leaf,
        "type": st.sampled_from(["private", "group", "channel", "x"]) | _leaf,
    },
    optional={"username": st.just(CHANNEL[1:]) | st.text(max_size=10) | _leaf},
)
_text = st.sampled_from([f"/{name}" for name in COMMANDS]) | st.text(max_size=60)
_words = st.builds(lambda first, rest: f"{first} {rest}", _text, st.text(max_size=60))
_message = st.fixed_dictionaries(
    {"message_id": _number | _leaf, "date": st.integers(0, 2**33) | _leaf, "chat": _chat | _json},
    optional={"from": _user | _json, "text": _words | _text | _leaf, "entities": _json, "photo": _json},
)
_member = st.fixed_dictionaries(
    {"user": _user | _json, "status": st.sampled_from(["left", "kicked", "member", "restricted"]) | _leaf},
    optional={"is_member": st.booleans() | _leaf},
)
_changed = st.fixed_dictionaries(
    {"chat": _chat, "from": _user, "date": st.integers(0, 2**33) | _leaf, "new_chat_member": _member | _json}
)
_data = st.sampled_from(["replace:x", "forget:", "cancel:abc", "no:"])
_pressed = st.fixed_dictionaries(
    {"id": st.text(max_size=10) | _leaf, "from": _user, "chat_instance": st.text(max_size=4)},
    optional={
        "data": st.sampled_from(["replace:x", "forget:", "cancel:abc", "no:"]) | st.text(max_size=80),
        "message": _message,
    },
)
_update = st.fixed_dictionaries(
    {},
    optional={
        "message": _message | _json,
        "chat_member": _changed | _json,
        "callback_query": _pressed | _json,
        "edited_message": _message,
        "my_chat_member": _json,
    },
)


@given(raw=_json | _update.map(lambda one: {"update_id": 5, **one}))
@settings(max_examples=400, deadline=None, suppress_health_check=_SLOW)
def test_an_update_is_a_task_without_words_or_nothing(raw: Any) -> None:
    if update_id_of(raw) is None:
        return
    try:
        asked = asked_of(raw, _BOT, _ME, CHANNEL)
    except _SAFE:
        return
    assert asked is None or _is_sound(asked)


def _is_sound(asked: Asked) -> bool:
    """What is stored of it: numbers, and words of the bot's own."""
    task = asked.task
    numbers = (task.update_id, task.account, abs(task.chat), abs(task.message), task.date)
    is_known = task.argument in ("", PROMPT) or task.argument.isdigit() or task.argument.startswith(KEY)
    is_button = task.kind == "button" and len(task.argument) <= 60 and task.argument.isascii()
    return 0 < task.account < 2**53 and all(number < 2**53 for number in numbers) and (is_known or is_button)


@given(raw=_json | _member)
@settings(max_examples=300, deadline=None)
def test_who_is_a_member_is_said_by_nothing_but_telegrams_own_words(raw: Any) -> None:
    found = Membership.of(raw)
    if found is not None:
        assert raw["status"] == found.status
        is_restricted_member = found.status == "restricted" and raw["is_member"] is True
        assert found.is_member == (found.status in ("creator", "administrator", "member") or is_restricted_member)


@given(updates=st.lists(_update, min_size=1, max_size=20))
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_the_bot_goes_on(place: Place, updates: list[dict[str, Any]]) -> None:
    """Over the wire, to the process; then somebody else is answered."""
    shown = set(keys_shown(place.telegram))
    for update in updates:
        place.telegram.put(_sendable(update))
    asking = Person(place.telegram, 5_000_001)
    assert "have no key" in asking.ask("/status").text
    assert set(keys_shown(place.telegram)) == shown and place.bots[0].process.poll() is None


def _sendable(value: Any) -> Any:
    """JSON has no NaN and Telegram no halves of characters."""
    if isinstance(value, dict):
        return {_sendable(name): _sendable(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_sendable(one) for one in value]
    if isinstance(value, float) and not -1e300 < value < 1e300:
        return None
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
