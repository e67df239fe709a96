"""Telegram, through python-telegram-bot: patient where it may be, and with its errors sorted.

RetryAfter, network trouble      tried again, after what Telegram says or a while
Unanswered                       given up after a few times: nobody knows
Refused                          Telegram answered no: the message is gone, the user has blocked the bot, ...
CraftError TELEGRAM_REFUSED      the token is no good any more: the process ends
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar
from urllib.parse import urlencode

os.environ.setdefault("PTB_TIMEDELTA", "1")  # how the library is to give durations

from craft_protos.reasons import CraftError
from craft_protos.settings import TelegramSettings
from telegram import Bot, InlineKeyboardButton, InlineKeyboardMarkup, ReplyParameters, User
from telegram.constants import ParseMode
from telegram.error import BadRequest, Conflict, Forbidden, InvalidToken, NetworkError, RetryAfter, TelegramError
from telegram.request import HTTPXRequest

from craftd.bot.logs import redacted
from craftd.bot.report import Report
from craftd.bot.task import Membership

_log = logging.getLogger("craft.bot")
T = TypeVar("T")
_POLL_S = 50
_MARGIN_S = 15.0  # for an answer, beyond how long Telegram may hold it back
_FEW = 3
_LEAST_WAIT_S, _LONGEST_WAIT_S = 0.5, 60.0
_CALLS_PER_S = 25.0  # Telegram asks for at most 30 messages a second
_CONNECTIONS = 64

Buttons = Sequence[tuple[str, str]]  # (text, data)


class Unanswered(Exception):
    """Telegram could not be asked; `str()`: why."""


class Refused(Exception):
    """Telegram has answered with an error; `str()`: its own words."""


class Api:
    def __init__(self, settings: TelegramSettings, token: str, report: Report) -> None:
        base = settings.api_url.rstrip("/")
        self._poll = HTTPXRequest(connection_pool_size=2, read_timeout=_POLL_S + _MARGIN_S)
        self._bot = Bot(
            token,
            base_url=f"{base}/bot",
            base_file_url=f"{base}/file/bot",
            request=HTTPXRequest(connection_pool_size=_CONNECTIONS, read_timeout=_MARGIN_S, pool_timeout=60.0),
            get_updates_request=self._poll,
        )
        self._url = f"{base}/bot{token}"
        self._token_file = settings.token_file
        self._report = report
        self._pace = Pace(_CALLS_PER_S)

    async def open(self) -> User:
        """Whose token it is; waits until Telegram answers. Raises TELEGRAM_REFUSED."""
        await self.patiently(self._bot.initialize)
        await self.patiently(lambda: self._bot.delete_webhook(drop_pending_updates=False))
        return self._bot.bot

    async def close(self) -> None:
        await self._bot.shutdown()

    @property
    def bot(self) -> Bot:
        """For taking updates apart."""
        return self._bot

    async def updates(self, offset: int, allowed: Sequence[str], *, waits: bool) -> list[Any]:
        """As they came, undecoded: one that is malformed takes no other along. Raises Unanswered, TELEGRAM_REFUSED.

        `waits`: Telegram holds the answer back until there is an update.
        """
        wanted = ", ".join(f'"{kind}"' for kind in allowed)
        query = urlencode(
            {"offset": offset, "timeout": _POLL_S if waits else 0, "limit": 100, "allowed_updates": f"[{wanted}]"}
        )
        found = await self._mapped(lambda: self._poll.post(f"{self._url}/getUpdates?{query}"))
        return found if isinstance(found, list) else []

    async def send(self, chat: int, text: str, *, buttons: Buttons = (), is_protected: bool = False) -> int:
        """The message's number. Waits until Telegram takes it. Raises Refused."""

        async def send() -> int:
            sent = await self._bot.send_message(
                chat,
                text,
                parse_mode=ParseMode.MARKDOWN_V2,
                reply_markup=_keyboard(buttons),
                protect_content=is_protected,
                disable_web_page_preview=True,
            )
            return sent.message_id

        return await self.patiently(send)

    async def send_picture(self, chat: int, reply_to: int, picture: bytes, caption: str) -> None:
        """As a reply. Raises Refused."""
        reply = ReplyParameters(reply_to, allow_sending_without_reply=True)
        await self.patiently(
            lambda: self._bot.send_photo(
                chat, picture, caption=caption, parse_mode=ParseMode.MARKDOWN_V2, reply_parameters=reply
            )
        )

    async def edit(self, chat: int, message: int, text: str) -> None:
        """The same text again is no error: the message has it. Raises Refused."""
        try:
            await self.patiently(
                lambda: self._bot.edit_message_text(
                    text, chat, message, parse_mode=ParseMode.MARKDOWN_V2, disable_web_page_preview=True
                )
            )
        except Refused as exc:
            if "not modified" not in str(exc).lower():
                raise

    async def delete(self, chat: int, message: int) -> None:
        """Raises Refused."""
        await self.patiently(lambda: self._bot.delete_message(chat, message))

    async def answer_button(self, query: str, text: str = "") -> None:
        """One that is too old has nobody who waits. Raises Refused."""
        await self.patiently(lambda: self._bot.answer_callback_query(query, text or None))

    async def member(self, channel: str, account: int) -> Membership:
        """Raises Refused; Unanswered after a few times, for somebody waits."""
        query = urlencode({"chat_id": channel, "user_id": account})
        found = await self._tried(lambda: self._bot.request.post(f"{self._url}/getChatMember?{query}"), _FEW)
        membership = Membership.of(found)
        if membership is None:
            raise Unanswered("the answer is no ChatMember")
        return membership

    async def patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        """Tried again until it is answered. Raises Refused, TELEGRAM_REFUSED."""
        return await self._tried(call, None)

    async def _tried(self, call: Callable[[], Awaitable[T]], most: int | None) -> T:
        wait_s, tries = _LEAST_WAIT_S, 0
        while True:
            try:
                await self._pace.take()
                return await self._mapped(call)
            except _Later as exc:
                tries += 1
                if most is not None and tries >= most:
                    raise Unanswered(exc.why) from exc
                _log.warning("Telegram does not answer", extra={"why": exc.why, "wait_s": exc.wait_s or wait_s})
                await asyncio.sleep(exc.wait_s or wait_s)
                wait_s = min(2 * wait_s, _LONGEST_WAIT_S)

    async def _mapped(self, call: Callable[[], Awaitable[T]]) -> T:
        try:
            answer = await call()
        except InvalidToken as exc:
            message = f"Telegram does not take the token in {self._token_file}"
            raise CraftError("TELEGRAM_REFUSED", message, "get a new one from BotFather: /token") from exc
        except (BadRequest, Forbidden) as exc:
            raise self._refused(exc) from exc
        except RetryAfter as exc:
            self._report.api_errors += 1
            wait: Any = exc.retry_after
            raise _Later(exc.message, wait.total_seconds()) from exc
        except Conflict as exc:
            self._report.api_errors += 1
            raise _Conflict(exc.message) from exc
        except NetworkError as exc:
            self._report.api_errors += 1
            self._report.trouble("telegram", f"Telegram does not answer: {redacted(exc.message)}")
            raise _Later(redacted(exc.message)) from exc
        except TelegramError as exc:
            raise self._refused(exc) from exc
        self._report.recover("telegram")
        return answer

    def _refused(self, exc: TelegramError) -> Refused:
        self._report.api_errors += 1
        self._report.recover("telegram")  # it does answer
        return Refused(redacted(exc.message))


class _Later(Unanswered):
    """Worth another try; `wait_s`: after what Telegram itself said."""

    def __init__(self, why: str, wait_s: float = 0.0) -> None:
        super().__init__(why)
        self.why = why
        self.wait_s = wait_s


class _Conflict(_Later):
    """Another process receives the updates."""


def wait_of(exc: Unanswered) -> float:
    """Seconds that Telegram asked for; 0: none."""
    return exc.wait_s if isinstance(exc, _Later) else 0.0


def is_conflict(exc: Unanswered) -> bool:
    return isinstance(exc, _Conflict)


class Pace:
    """Lets so many calls through a second, evenly, in the order in which they come."""

    def __init__(self, per_s: float) -> None:
        self._gap_s = 1.0 / per_s
        self._next = 0.0

    async def take(self) -> None:
        now = time.monotonic()
        at = max(now, self._next)
        self._next = at + self._gap_s
        if at > now:
            await asyncio.sleep(at - now)


def _keyboard(buttons: Buttons) -> InlineKeyboardMarkup | None:
    if not buttons:
        return None
    return InlineKeyboardMarkup([[InlineKeyboardButton(text, callback_data=data) for text, data in buttons]])
