"""A Bot API server on loopback, and the people who write to its bot.

It answers as Telegram's documentation says, to the methods that the bot calls; faults are queued by method.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import socket
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email import message_from_bytes
from typing import Any
from urllib.parse import parse_qsl

import uvicorn
from fastapi import FastAPI, Request, Response

from tests.bot.markdown import Unparsable, plain
from tests.home import HANG_S

TOKEN = "1234567890:AAtest-token_of-nobody-0123456789abcde"
USERNAME = "craft_keys_bot"
BOT_ID = 1234567890
CHANNEL, CHANNEL_ID = "@craft_channel", -1001234567890
GROUP = -100777
_LONGEST = 4096


@dataclass(frozen=True)
class Fault:
    """Instead of an answer, or (`is_late`) after the call has had its effect; what a broken proxy says, if need be."""

    code: int = 502
    description: str = ""
    retry_after: int = 0
    chat: int = 0  # in answer to calls about that chat alone; 0: to any
    is_late: bool = False
    body: bytes | None = None
    action: Callable[[], object] | None = None


@dataclass
class Message:
    """One that the bot sent, as its reader sees it now."""

    chat: int
    id: int
    text: str
    buttons: dict[str, str] = field(default_factory=dict)  # text -> data
    is_protected: bool = False
    reply_to: int = 0
    picture: bytes = b""
    shown: list[str] = field(default_factory=list)  # all that ever stood there
    is_deleted: bool = False


class ApiError(Exception):
    def __init__(self, code: int, description: str) -> None:
        self.code = code
        self.description = description


class Telegram:
    def __init__(self) -> None:
        self.url = ""
        self.token = TOKEN
        self.bot_status = "administrator"
        self.statuses: dict[int, dict[str, Any]] = {}
        self.blocked: set[int] = set()
        self.messages: list[Message] = []
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.answers: list[tuple[str, str]] = []  # to buttons: (query, text)
        self.offsets: list[int] = []
        self.pollers = 0
        self.tells_anybody = False  # who is a member, also a bot that is no admin
        self.on_asked: dict[int, Callable[[], object]] = {}  # once, when the bot asks about that account
        self._updates: list[dict[str, Any]] = []
        self._faults: dict[str, deque[Fault]] = defaultdict(deque)
        self._outage: Fault | None = None
        self._changed = threading.Condition()
        self._numbers = itertools.count(1000)
        self._update_ids = itertools.count(500_000)
        self._ends = False

    # Faults

    def fault(self, method: str, *faults: Fault) -> None:
        with self._changed:
            self._faults[method].extend(faults)

    def forgive(self) -> None:
        """What is queued happens no more."""
        with self._changed:
            self._faults.clear()

    def fail_all(self, fault: Fault | None) -> None:
        """Until it is taken back."""
        with self._changed:
            self._outage = fault
            self._changed.notify_all()

    def _next_fault(self, method: str, chat: Any) -> Fault | None:
        queue = self._faults[method]
        found = next((one for one in queue if not one.chat or str(one.chat) == str(chat)), None)
        if found is None:
            return self._outage
        queue.remove(found)
        return found

    # People

    def user(self, account: int) -> User:
        return User(self, account)

    def status_of(self, account: int, status: str, **more: object) -> None:
        """Without an update: Telegram's answers alone change."""
        with self._changed:
            self.statuses[account] = {"status": status, **more}

    def put(self, update: dict[str, Any], update_id: int | None = None) -> int:
        """An update for the bot; its number."""
        with self._changed:
            number = next(self._update_ids) if update_id is None else update_id
            self._updates.append({"update_id": number, **update})
            self._changed.notify_all()
        return number

    def put_raw(self, *updates: Any) -> None:
        with self._changed:
            self._updates.extend(updates)
            self._changed.notify_all()

    def pending(self) -> list[Any]:
        with self._changed:
            return list(self._updates)

    def drop_pending(self) -> None:
        with self._changed:
            self._updates.clear()

    # What was said

    def said_to(self, chat: int) -> list[Message]:
        with self._changed:
            return [one for one in self.messages if one.chat == chat and not one.is_deleted]

    def called(self, method: str) -> list[dict[str, Any]]:
        with self._changed:
            return [parameters for name, parameters in self.calls if name == method]

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        """Woken by every call of the bot's."""
        deadline = time.monotonic() + HANG_S
        while not (answer := condition()):
            assert time.monotonic() < deadline, f"not in time: {what}"
            with self._changed:
                self._changed.wait(0.05)
        return answer

    # The server

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.api_route("/bot{token}/{method}", methods=["GET", "POST"])
        async def call(token: str, method: str, request: Request) -> Response:
            return await self._answer(token, method, request)

        return app

    def end(self) -> None:
        with self._changed:
            self._ends = True
            self._changed.notify_all()

    async def _answer(self, token: str, method: str, request: Request) -> Response:
        parameters = await _parameters(request)
        if token != self.token:
            return _error(401, "Unauthorized")
        with self._changed:
            self.calls.append((method, parameters))
            fault = self._next_fault(method, parameters.get("chat_id"))
            self._changed.notify_all()
        if fault is not None and not fault.is_late:
            return await _fail(fault)
        try:
            handler = getattr(self, f"on_{method}", None)
            if handler is None:
                return _error(404, "Not Found")
            result = await handler(parameters, request)
        except ApiError as exc:
            return _error(exc.code, exc.description)
        if fault is not None:
            return await _fail(fault)
        return Response(json.dumps({"ok": True, "result": result}), media_type="application/json")

    async def on_getMe(self, _: dict[str, Any], _request: Request) -> Any:
        return _bot()

    async def on_deleteWebhook(self, _: dict[str, Any], _request: Request) -> Any:
        return True

    async def on_getUpdates(self, parameters: dict[str, Any], request: Request) -> Any:
        """Updates below the offset are confirmed, and forgotten."""
        offset, timeout_s = int(parameters.get("offset") or 0), float(parameters.get("timeout") or 0)
        allowed = json.loads(parameters.get("allowed_updates") or "[]")
        with self._changed:
            self.offsets.append(offset)
            self._updates = [one for one in self._updates if not _is_below(one, offset)]
        until = time.monotonic() + timeout_s
        self.pollers += 1
        try:
            while not self._ends and time.monotonic() < until:
                with self._changed:
                    outage = self._outage
                    found = [one for one in self._updates if _is_allowed(one, allowed)]
                if outage is not None:
                    raise ApiError(502, "Bad Gateway")
                if found:
                    return found[: int(parameters.get("limit") or 100)]
                if await request.is_disconnected():
                    break
                await asyncio.sleep(0.01)
        finally:
            self.pollers -= 1
        return []

    async def on_sendMessage(self, parameters: dict[str, Any], _request: Request) -> Any:
        return self._store(parameters, parameters["text"])

    async def on_sendPhoto(self, parameters: dict[str, Any], request: Request) -> Any:
        return self._store(parameters, parameters.get("caption", ""), parameters["photo"])

    async def on_editMessageText(self, parameters: dict[str, Any], _request: Request) -> Any:
        chat = int(parameters["chat_id"])
        message = self._find(chat, int(parameters["message_id"]), "message to edit not found")
        self._check_reachable(chat)
        text = _shown(parameters)
        if text == message.text:
            raise ApiError(400, "Bad Request: message is not modified: specified new message content is the same")
        with self._changed:
            message.text = text
            message.shown.append(text)
            message.buttons = _buttons(parameters)
            self._changed.notify_all()
        return _message(message)

    async def on_deleteMessage(self, parameters: dict[str, Any], _request: Request) -> Any:
        message = self._find(int(parameters["chat_id"]), int(parameters["message_id"]), "message to delete not found")
        with self._changed:
            message.is_deleted = True
            self._changed.notify_all()
        return True

    async def on_answerCallbackQuery(self, parameters: dict[str, Any], _request: Request) -> Any:
        with self._changed:
            self.answers.append((parameters["callback_query_id"], parameters.get("text", "")))
            self._changed.notify_all()
        return True

    async def on_getChatMember(self, parameters: dict[str, Any], _request: Request) -> Any:
        if str(parameters["chat_id"]) not in (CHANNEL, str(CHANNEL_ID)):
            raise ApiError(400, "Bad Request: chat not found")
        account = int(parameters["user_id"])
        if account == BOT_ID:
            if self.bot_status == "left":
                raise ApiError(403, "Forbidden: bot is not a member of the channel chat")
            return _member(account, self.bot_status)
        if self.bot_status != "administrator" and not self.tells_anybody:
            raise ApiError(400, "Bad Request: member list is inaccessible")
        if (act := self.on_asked.pop(account, None)) is not None:
            await asyncio.to_thread(act)
        known = self.statuses.get(account)
        if known is None:
            raise ApiError(400, "Bad Request: PARTICIPANT_ID_INVALID")
        return _member(account, **known)

    def _store(self, parameters: dict[str, Any], text: str, picture: bytes = b"") -> Any:
        chat = int(parameters["chat_id"])
        self._check_reachable(chat)
        if len(text.encode("utf-16-le")) // 2 > _LONGEST * 2:
            raise ApiError(400, "Bad Request: message is too long")
        shown = _shown({**parameters, "text": text})
        reply = json.loads(parameters.get("reply_parameters") or "{}").get("message_id", 0)
        with self._changed:
            message = Message(
                chat,
                next(self._numbers),
                shown,
                _buttons(parameters),
                is_protected=str(parameters.get("protect_content", "")).lower() == "true",
                reply_to=reply,
                picture=picture,
                shown=[shown],
            )
            self.messages.append(message)
            self._changed.notify_all()
        return _message(message)

    def _find(self, chat: int, number: int, why: str) -> Message:
        with self._changed:
            for message in self.messages:
                if (message.chat, message.id) == (chat, number) and not message.is_deleted:
                    return message
        raise ApiError(400, f"Bad Request: {why}")

    def _check_reachable(self, chat: int) -> None:
        if chat in self.blocked:
            raise ApiError(403, "Forbidden: bot was blocked by the user")


@dataclass(frozen=True)
class User:
    """An account of Telegram's."""

    telegram: Telegram
    account: int
    name: str = "Ada Lovelace"

    def send(self, text: str, chat: int | None = None, **more: Any) -> int:
        """A message to the bot, in private unless a chat is named; the update's number."""
        return self.telegram.put({"message": self.message(text, chat, **more)})

    def message(self, text: str, chat: int | None = None, **more: Any) -> dict[str, Any]:
        place = {"id": self.account, "type": "private", "first_name": self.name}
        if chat is not None:
            place = {"id": chat, "type": "supergroup", "title": "a group"}
        return {
            "message_id": next(self.telegram._numbers),
            "date": int(time.time()),
            "chat": place,
            "from": self.person(),
            "text": text,
            **more,
        }

    def person(self) -> dict[str, Any]:
        return {"id": self.account, "is_bot": False, "first_name": self.name, "username": "ada_" + str(self.account)}

    def press(self, message: Message, button: str, by: User | None = None) -> int:
        presser = by or self
        query = {
            "id": str(next(self.telegram._numbers)),
            "from": presser.person(),
            "chat_instance": "1",
            "data": message.buttons[button],
            "message": {
                "message_id": message.id,
                "date": int(time.time()),
                "chat": {"id": message.chat, "type": "private" if message.chat > 0 else "supergroup", "title": "x"},
                "text": message.text,
            },
        }
        return self.telegram.put({"callback_query": query})

    def join(self) -> int:
        return self.becomes("member")

    def leave(self) -> int:
        return self.becomes("left")

    def becomes(self, status: str, *, date: int = 0, is_told: bool = True, **more: Any) -> int:
        """In the channel; the update's number."""
        self.telegram.status_of(self.account, status, **more)
        return self.telegram.put(self.changed(status, date=date, **more)) if is_told else 0

    def changed(self, status: str, *, date: int = 0, **more: Any) -> dict[str, Any]:
        return {
            "chat_member": {
                "chat": {"id": CHANNEL_ID, "type": "channel", "title": "craft", "username": CHANNEL[1:]},
                "from": self.person(),
                "date": date or int(time.time()),
                "old_chat_member": _member(self.account, "left"),
                "new_chat_member": _member(self.account, status, **more),
            }
        }

    @property
    def inbox(self) -> list[Message]:
        return self.telegram.said_to(self.account)

    def ask(self, text: str) -> Message:
        """The bot's next message in the private chat, once it is there."""
        before = len(self.telegram.messages)
        self.send(text)
        return self.hears("", after=before)

    def hears(self, part: str, after: int = 0) -> Message:
        """The first message to this account that holds it."""
        telegram = self.telegram

        def found() -> Message | None:
            fitting = [one for one in telegram.messages[after:] if one.chat == self.account and part in one.text]
            return fitting[0] if fitting else None

        message = telegram.until(found, f"{part!r} to {self.account}")
        assert isinstance(message, Message)
        return message


@contextlib.contextmanager
def serving() -> Iterator[Telegram]:
    """On a port of its own, in a thread."""
    telegram = Telegram()
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(telegram.app(), log_config=None, lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: server.run(sockets=[listener]), name="telegram")
    thread.start()
    telegram.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        yield telegram
    finally:
        telegram.end()
        server.should_exit = True
        thread.join()
        listener.close()


async def _parameters(request: Request) -> dict[str, Any]:
    found: dict[str, Any] = dict(request.query_params)
    body, kind = await request.body(), request.headers.get("content-type", "")
    if kind.startswith("multipart/"):
        whole = message_from_bytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + body)
        for part in whole.walk():
            if name := part.get_param("name", header="content-disposition"):
                data = part.get_payload(decode=True)
                found[str(name)] = data if part.get_filename() else bytes(data).decode()
    else:
        found |= dict(parse_qsl(body.decode()))
    photo = found.get("photo")
    if isinstance(photo, str) and photo.startswith("attach://"):
        found["photo"] = found[photo.removeprefix("attach://")]
    return found


async def _fail(fault: Fault) -> Response:
    if fault.action is not None:
        await asyncio.to_thread(fault.action)
    if fault.body is not None:
        return Response(fault.body, fault.code, media_type="text/html")
    return _error(fault.code, fault.description, fault.retry_after)


def _error(code: int, description: str, retry_after: int = 0) -> Response:
    answer: dict[str, Any] = {"ok": False, "error_code": code, "description": description}
    if retry_after:
        answer["parameters"] = {"retry_after": retry_after}
    return Response(json.dumps(answer), code, media_type="application/json")


def _shown(parameters: dict[str, Any]) -> str:
    text = parameters["text"]
    if parameters.get("parse_mode") != "MarkdownV2":
        return str(text)
    try:
        shown = plain(text)
    except Unparsable as exc:
        raise ApiError(400, f"Bad Request: can't parse entities: {exc}") from exc
    if len(shown.encode("utf-16-le")) // 2 > _LONGEST:
        raise ApiError(400, "Bad Request: message is too long")
    if not shown.strip():
        raise ApiError(400, "Bad Request: message text is empty")
    return shown


def _buttons(parameters: dict[str, Any]) -> dict[str, str]:
    rows = json.loads(parameters.get("reply_markup") or "{}").get("inline_keyboard", [])
    return {button["text"]: button["callback_data"] for row in rows for button in row}


def _bot() -> dict[str, Any]:
    return {
        "id": BOT_ID,
        "is_bot": True,
        "first_name": "craft",
        "username": USERNAME,
        "can_join_groups": True,
        "can_read_all_group_messages": False,
        "supports_inline_queries": False,
    }


def _member(account: int, status: str, **more: Any) -> dict[str, Any]:
    """As Telegram has each kind, with all the fields that it has."""
    rights: dict[str, Any] = {}
    if status == "administrator":
        names = ("manage_chat", "delete_messages", "manage_video_chats", "restrict_members", "promote_members")
        rights = {f"can_{name}": True for name in (*names, "change_info", "invite_users", "post_stories")}
        rights |= {"can_edit_stories": True, "can_delete_stories": True}
        rights |= {"can_be_edited": False, "is_anonymous": False}
    elif status == "creator":
        rights = {"is_anonymous": False}
    elif status == "kicked":
        rights = {"until_date": 0}
    elif status == "restricted":
        kinds = ("send_messages", "send_audios", "send_documents", "send_photos", "send_videos", "send_video_notes")
        more_names = ("send_voice_notes", "send_polls", "send_other_messages", "add_web_page_previews", "change_info")
        rights = {f"can_{name}": False for name in (*kinds, *more_names, "invite_users", "pin_messages")}
        rights |= {"can_manage_topics": False, "until_date": 0, "is_member": True}
    user = {"id": account, "is_bot": account == BOT_ID, "first_name": "x"}
    return {"user": user, "status": status, **rights, **more}


def _message(message: Message) -> dict[str, Any]:
    return {
        "message_id": message.id,
        "date": int(time.time()),
        "chat": {"id": message.chat, "type": "private" if message.chat > 0 else "supergroup"},
        "text": message.text,
    }


def _is_below(update: Any, offset: int) -> bool:
    """Telegram's own numbers are numbers; what a test makes up goes with the others."""
    number = update.get("update_id") if isinstance(update, dict) else None
    return not isinstance(number, int) or number < offset


def _is_allowed(update: Any, allowed: list[str]) -> bool:
    if not isinstance(update, dict):
        return True
    kinds = set(update) - {"update_id"}
    return not allowed or not kinds or bool(kinds & set(allowed)) or not kinds <= {"message", "edited_message"}
