"""A task: what an update asks for, as it is stored until it is done. No name and no text is in it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from craft_protos import api_key
from telegram import Bot, CallbackQuery, Message, Update, User

ALLOWED_UPDATES = ("message", "callback_query", "chat_member")
COMMANDS = ("start", "help", "key", "replace", "status", "forget", "ban", "unsuspend", "stats", "draw")
BUTTON, MEMBER, OTHER = "button", "member", "other"  # besides commands
PROMPT = "prompt"  # the argument of /draw that came with one
KEY = "key:"  # an argument that is a key's id, not an account's number
_COMMAND = re.compile(r"/([A-Za-z_]{1,32})(?:@(\w{1,64}))?(?:\s+(.*))?", re.DOTALL)
_DATA = re.compile(r"[a-z]{1,12}:[0-9a-z]{0,40}")
_LARGEST = 1 << 53  # Telegram promises that numbers have at most 52 bits


@dataclass(frozen=True)
class Task:
    update_id: int
    kind: str
    account: int
    chat: int = 0
    is_private: bool = False
    message: int = 0
    argument: str = ""  # an account's number, a key's id, a button's data
    query: str = ""  # of a button that was pressed
    date: int = 0  # of a change of membership
    is_member: bool = False
    job: str = ""  # of a picture that is being drawn
    status: int = 0  # the message that tells how far that is


@dataclass(frozen=True)
class Asked:
    """A task, and the prompt that came with it, which is not stored."""

    task: Task
    prompt: str = field(default="", repr=False)


@dataclass(frozen=True)
class Membership:
    """What Telegram says of an account and a channel. Of all the fields that a ChatMember has these two matter:
    the library insists on every field of its own version, and a Bot API server may be of another.
    """

    status: str
    is_member: bool

    @classmethod
    def of(cls, raw: object) -> Membership | None:
        """None where it is no ChatMember, or of a kind that nobody knows."""
        if not isinstance(raw, Mapping):
            return None
        status = raw.get("status")
        if status in ("creator", "administrator", "member"):
            return cls(str(status), is_member=True)
        if status in ("left", "kicked"):
            return cls(str(status), is_member=False)
        if status == "restricted" and isinstance(raw.get("is_member"), bool):
            return cls("restricted", is_member=raw["is_member"])
        return None

    @property
    def is_admin(self) -> bool:
        return self.status in ("creator", "administrator")


def asked_of(raw: Mapping[str, Any], bot: Bot, me: User, channel: str) -> Asked | None:
    """None where the update asks for nothing: of somebody else's channel, for another bot, by a bot.

    Raises TypeError, ValueError, ... where it is no update as Telegram documents them.
    """
    if "chat_member" in raw:
        return _of_member(raw["update_id"], raw["chat_member"], channel)
    update = Update.de_json(dict(raw), bot)
    if update.callback_query is not None:
        return _of_button(update.update_id, update.callback_query)
    if update.message is not None:
        return _of_message(update.update_id, update.message, me)
    return None


def update_id_of(raw: object) -> int | None:
    """Of an update as it came, however malformed the rest of it is."""
    found = raw.get("update_id") if isinstance(raw, Mapping) else None
    return found if _fits(found) else None


def _of_member(update_id: int, changed: Mapping[str, Any], channel: str) -> Asked | None:
    member = changed["new_chat_member"]
    found, user, date = Membership.of(member), member["user"], changed["date"]
    if found is None or user["is_bot"] is not False or not _fits(user["id"]) or not _fits(date):
        return None
    if not _is_channel(changed["chat"], channel):
        return None
    return Asked(Task(update_id, MEMBER, user["id"], date=date, is_member=found.is_member))


def _is_channel(chat: Mapping[str, Any], channel: str) -> bool:
    if channel.startswith("@"):
        return str(chat.get("username", "")).casefold() == channel[1:].casefold()
    return str(chat["id"]) == channel


def _of_button(update_id: int, pressed: CallbackQuery) -> Asked | None:
    place, data = pressed.message, pressed.data or ""
    if pressed.from_user.is_bot or not _fits(pressed.from_user.id) or place is None or not _DATA.fullmatch(data):
        return None
    task = Task(
        update_id,
        BUTTON,
        pressed.from_user.id,
        chat=place.chat.id,
        is_private=place.chat.type == "private",
        message=place.message_id,
        argument=data,
        query=str(pressed.id),
    )
    return Asked(task) if _fits(abs(task.chat)) else None


def _of_message(update_id: int, message: Message, me: User) -> Asked | None:
    sender = message.from_user
    if sender is None or sender.is_bot or not _fits(sender.id) or not _fits(abs(message.chat.id)):
        return None
    is_private = message.chat.type == "private"
    found = _COMMAND.fullmatch((message.text or "").strip())
    kind, addressee, rest = (found[1].lower(), found[2], found[3] or "") if found else (OTHER, None, "")
    if addressee is not None and addressee.casefold() != (me.username or "").casefold():
        return None
    if kind not in COMMANDS:
        kind = OTHER
    if kind == OTHER and not is_private:
        return None
    argument = _argument(rest) if kind in ("ban", "unsuspend") else ""
    if kind == "draw":
        argument = PROMPT if rest.strip() else ""
    task = Task(
        update_id,
        kind,
        sender.id,
        chat=message.chat.id,
        is_private=is_private,
        message=message.message_id,
        argument=argument,
    )
    return Asked(task, rest.strip() if kind == "draw" else "")


def _argument(text: str) -> str:
    """An account's number or a key's id, from whatever was pasted; "" where it is neither."""
    text = text.strip().removeprefix("telegram:")
    if (pasted := api_key.parse(text)) is not None:
        return f"{KEY}{pasted.id}"
    if re.fullmatch(r"\d{1,15}", text):
        return str(int(text))
    return f"{KEY}{text}" if re.fullmatch(rf"[{api_key.ALPHABET}]{{10}}", text) else ""


def _fits(number: object) -> TypeGuard[int]:
    return isinstance(number, int) and not isinstance(number, bool) and 0 < number < _LARGEST
