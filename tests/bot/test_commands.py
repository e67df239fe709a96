"""What the bot answers, over a real daemon: keys are given to members, once, in private."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from craft_protos import jobs_pb2, keys_pb2

from tests.bot.place import ADMIN, Place, key_in, keys_shown
from tests.bot.telegram import CHANNEL, GROUP, USERNAME, User
from tests.home import HANG_S


def _owner(user: User) -> str:
    return f"telegram:{user.account}"


def _pressed(place: Place, user: User, ask: str, button: str, then: str) -> str:
    """What is said once the question's button was pressed."""
    question = user.ask(ask)
    before = len(place.telegram.messages)
    user.press(question, button)
    return user.hears(then, before).text


@pytest.mark.parametrize("command", ["/start", "/help", "/help@" + USERNAME, "/HELP"])
def test_what_it_is_the_channels_link_and_where_http_and_docs_are(place: Place, user: User, command: str) -> None:
    text = user.ask(command).text
    assert CHANNEL in text and f"https://t.me/{CHANNEL[1:]}" in text
    assert place.shim.url in text and f"{place.shim.url}/docs" in text
    assert all(name in text for name in ("/key", "/status", "/replace", "/forget")) and "/ban" not in text


@pytest.mark.parametrize("status", ["left", "kicked", "restricted", ""])
def test_who_is_no_member_hears_how_to_become_one(place: Place, user: User, status: str) -> None:
    if status:
        user.becomes(status, is_told=False, **({"is_member": False} if status == "restricted" else {}))
    text = user.ask("/key").text
    assert text.startswith("Become a member") and f"https://t.me/{CHANNEL[1:]}" in text
    assert place.key(user.account) is None


@pytest.mark.parametrize("status", ["member", "administrator", "creator", "restricted"])
def test_a_member_gets_a_key_once_protected_with_the_line_that_uses_it(
    place: Place, user: User, status: str, tmp_path: Path
) -> None:
    user.becomes(status, is_told=False)
    user.send("/key")
    message = user.hears("Your key.")
    key = key_in(message.text)
    assert message.is_protected and place.works(key) == (200, "")
    line = next(line for line in message.text.splitlines() if line.startswith("curl "))
    subprocess.run(shlex.split(line), cwd=tmp_path, check=True, timeout=HANG_S)
    assert (tmp_path / "apple.png").read_bytes().startswith(b"\x89PNG")
    again = user.ask("/key").text
    assert key not in again and "made on" in again and "is active" in again and "/replace" in again
    assert keys_shown(place.telegram)[key] == [(user.account, message.id)]
    found = place.key(user.account)
    assert found is not None and found.owner == _owner(user) and found.id in again


@pytest.mark.parametrize("command", ["/key", "/replace", "/status", "/forget", f"/key@{USERNAME}"])
def test_elsewhere_than_in_private_nothing_is_shown(place: Place, member: User, command: str) -> None:
    before = len(place.telegram.messages)
    member.send(command, chat=GROUP)
    place.telegram.until(lambda: len(place.telegram.messages) > before, "an answer in the group")
    (said,) = [one for one in place.telegram.messages[before:] if one.chat == GROUP]
    assert "private chat only" in said.text and f"https://t.me/{USERNAME}" in said.text
    assert place.key(member.account) is None


def test_a_key_is_replaced_after_a_question_and_the_old_one_ends(place: Place, member: User, key: str) -> None:
    assert _pressed(place, member, "/replace", "No", "Nothing was changed") and place.works(key)[0] == 200
    question = member.ask("/replace")
    before = len(place.telegram.messages)
    member.press(question, "Yes, a new key")
    new = key_in(member.hears("Your key.", before).text)
    assert new != key and place.works(new) == (200, "") and place.works(key) == (401, "UNAUTHENTICATED")
    place.telegram.until(lambda: question.is_deleted, "the question goes")
    before = len(place.telegram.messages)
    member.press(question, "Yes, a new key")
    assert "replaced already" in member.hears("", before).text
    assert len(keys_shown(place.telegram)[new]) == 1 and place.works(new)[0] == 200


def test_who_has_no_key_has_none_to_replace(place: Place, member: User) -> None:
    assert "You have no key" in member.ask("/replace").text
    assert "You have no key" in member.ask("/status").text


def test_status_tells_state_quota_and_pictures(place: Place, member: User, key: str) -> None:
    for _ in range(2):
        body = {"model": "flat", "prompt": "an apple", "image_count": 1, "steps": 1}
        assert place.shim.post("/generate", key, **body).status_code == 200
    text = member.ask("/status").text
    assert "is active" in text and re.search(r"Requests within this minute: [1-9]\d* of 1000000", text)
    assert "Pictures being drawn: 0 of 10000" in text and "last 24 hours: 2; kept: 2" in text


def test_forget_deletes_key_pictures_prompts_and_what_the_bot_knows(place: Place, member: User, key: str) -> None:
    made = place.shim.post("/jobs", key, prompt="a secret wish", steps=1).json()
    place.shim.finish(made["id"])
    running = place.shim.post("/jobs", key, prompt="[held] another wish", steps=2).json()
    member.join()
    member.leave()
    place.awaits(member.account, "suspended")
    member.join()
    place.awaits(member.account, "active")
    text = _pressed(place, member, "/forget", "Yes, delete it all", "Deleted")
    assert "2 requests, 1 pictures" in text and place.works(key) == (401, "UNAUTHENTICATED")
    assert place.key(member.account) is None
    jobs = place.shim.jobs.ListJobs(jobs_pb2.ListJobsRequest(page_size=1000)).jobs
    assert not {made["id"], running["id"]} & {job.id for job in jobs}
    place.telegram.until(lambda: not _knows(place, member), "the bot has forgotten, too")
    assert place.works(place.gives(member.account)) == (200, "")


def _knows(place: Place, user: User) -> bool:
    """Whether the account's number stands in any row of the bot's database."""
    import apsw

    connection = apsw.Connection(str(place.shim.home.paths.bot_database), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        rows = [
            row
            for table in ("updates", "deliveries", "memberships")
            for row in connection.execute(f"SELECT * FROM {table}")
        ]
    finally:
        connection.close()
    return str(user.account) in json.dumps(rows)


def test_nothing_is_forgotten_without_a_yes(place: Place, member: User, key: str) -> None:
    assert _pressed(place, member, "/forget", "No", "Nothing was changed")
    assert place.works(key)[0] == 200


def test_what_an_admin_suspended_stays_so(place: Place, member: User, key: str) -> None:
    """However its owner turns: leaving and coming back, a new key, being forgotten."""
    place.shim.keys.SuspendKey(keys_pb2.SuspendKeyRequest(key=_owner(member)))
    assert "suspended by an admin" in member.ask("/key").text
    assert "suspended your key" in member.ask("/replace").text
    member.leave()
    place.telegram.until(lambda: place.key(member.account).lapsed, "it lapses besides")  # type: ignore[union-attr]
    member.join()
    place.telegram.until(lambda: not place.key(member.account).lapsed, "it holds again")  # type: ignore[union-attr]
    assert place.state(member.account) == "suspended"
    assert "Your key stays" in _pressed(place, member, "/forget", "Yes, delete it all", "Deleted")
    assert place.works(key) == (403, "KEY_SUSPENDED")
    assert "is active" in place.user(ADMIN).ask(f"/unsuspend {member.account}").text
    assert place.works(key) == (200, "")


def test_a_ban_outlives_replaced_keys_forgetting_and_new_names(place: Place, member: User, key: str) -> None:
    question = member.ask("/replace")
    before = len(place.telegram.messages)
    member.press(question, "Yes, a new key")
    new = key_in(member.hears("Your key.", before).text)
    assert f"Account {member.account} is banned" in place.user(ADMIN).ask(f"/ban {new}").text
    assert place.works(new) == (403, "KEY_BANNED")
    for command in ("/key", "/replace"):
        assert "is banned" in member.ask(command).text
    assert "is banned" not in _pressed(place, member, "/forget", "Yes, delete it all", "Deleted")
    member.hears("A ban stays on record")
    renamed = User(place.telegram, member.account, "Somebody Else")
    assert "is banned" in renamed.ask("/key").text and place.state(member.account) == "banned"
    assert "A ban is for good" in place.user(ADMIN).ask(f"/unsuspend {member.account}").text


@pytest.mark.parametrize("how", ["number", "owner", "id", "key"])
def test_admins_ban_by_whatever_they_have(place: Place, member: User, key: str, how: str) -> None:
    found = place.key(member.account)
    assert found is not None
    named = {"number": str(member.account), "owner": found.owner, "id": found.id, "key": key}[how]
    assert f"Account {member.account} is banned" in place.user(ADMIN).ask(f"/ban {named}").text
    assert place.works(key) == (403, "KEY_BANNED")


def test_who_is_banned_before_having_a_key_gets_none(place: Place, member: User) -> None:
    assert "is banned" in place.user(ADMIN).ask(f"/ban {member.account}").text
    assert "is banned" in member.ask("/key").text and place.state(member.account) == "banned"


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("/ban", "/ban ACCOUNT"),
        ("/ban Ada Lovelace", "/ban ACCOUNT"),
        ("/ban 0000000000", "is banned"),  # digits alone are an account
        ("/unsuspend", "/unsuspend ACCOUNT"),
        ("/unsuspend 123", "no key of 123"),
        ("/ban abcdefghjk", "no key of abcdefghjk"),
    ],
)
def test_admins_are_told_what_a_command_lacks(place: Place, command: str, said: str) -> None:
    assert said in place.user(ADMIN).ask(command).text


def test_a_key_of_nobody_at_telegram_is_not_the_bots_to_ban(place: Place) -> None:
    made = place.shim.keys.CreateKey(keys_pb2.CreateKeyRequest(owner="alice"))
    assert "belongs to alice" in place.user(ADMIN).ask(f"/ban {made.key.id}").text
    assert place.works(made.secret) == (200, "")


@pytest.mark.parametrize("command", ["/ban 1", "/unsuspend 1", "/stats"])
def test_what_admins_may_nobody_else_may(place: Place, user: User, command: str) -> None:
    assert "do not know this command" in user.ask(command).text
    assert place.key(1) is None


def test_unsuspend_waits_for_who_has_left(place: Place, member: User, key: str) -> None:
    member.leave()
    place.awaits(member.account, "suspended")
    assert "once they are back" in place.user(ADMIN).ask(f"/unsuspend {member.account}").text
    assert place.works(key) == (403, "KEY_SUSPENDED")


def test_stats_count(place: Place, member: User, key: str) -> None:
    text = place.user(ADMIN).ask("/stats").text
    active = re.search(r"Keys: (\d+) active, \d+ suspended since", text)
    assert active is not None and int(active[1]) >= 1 and "updates" in text and "gone through" in text


def test_what_is_no_command_of_its(place: Place, user: User) -> None:
    assert "do not know" in user.ask("hello").text and "do not know" in user.ask("/nonsense").text
    before = len(place.telegram.messages)
    user.send("/key@some_other_bot")
    user.send("chatter", chat=GROUP)
    user.send("/nonsense", chat=GROUP)
    user.send("/help")
    user.hears("This bot gives keys", before)
    assert len(place.telegram.messages) == before + 1


def test_a_button_is_its_askers_alone(place: Place, member: User, key: str) -> None:
    """A question that stands in a group, or in somebody else's chat, is pressed in vain."""
    question = member.ask("/replace")
    stranger, before = place.user(member.account + 500_000), len(place.telegram.answers)
    member.press(question, "Yes, a new key", by=stranger)
    place.telegram.until(lambda: len(place.telegram.answers) > before, "the button is answered")
    assert "active" in member.ask("/key").text and place.works(key)[0] == 200


def test_no_name_and_no_text_is_stored(place: Place, member: User, key: str) -> None:
    marks = ("Zebulon", "ada_" + str(member.account), "a very private message", "confidential")
    person = User(place.telegram, member.account, "Zebulon Xylander")
    assert person.ask("a very private message").text and person.ask("/ban confidential words").text
    person.join()
    assert person.ask("/status").text
    folder = place.shim.home.paths.data_dir
    files = [path for path in folder.iterdir() if path.name.startswith(("bot.db", "craft.db"))]
    stored = b"".join(path.read_bytes() for path in files)
    assert len(files) >= 2 and not [mark for mark in (*marks, key) if mark.encode() in stored]
    assert str(member.account).encode() in stored  # they were looked at
