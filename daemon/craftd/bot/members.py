"""Who is in the channel: asked at /key, followed by updates, and gone through slowly for what they missed.

A key lapses when Telegram has answered `left` or `kicked`, and never because of an error, nor while the
bot is no admin of the channel: such answers are worth nothing.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from craft_protos import keys_pb2
from craft_protos.reasons import CraftError
from craft_protos.settings import TelegramSettings

from craftd.bot.api import Api, Pace, Refused, Unanswered
from craftd.bot.daemon import DaemonClient, account_of, owner_of
from craftd.bot.report import Report
from craftd.bot.store import BotStore
from craftd.bot.task import Task

_log = logging.getLogger("craft.bot")
_FRESH_S = 60.0  # an update that is older tells of the past: Telegram is asked
_LOOK_EVERY_S = 300.0
_LOOK_AGAIN_S = 15.0  # while the bot is no admin, or nobody knows
_MISSED_S = 3600.0  # after so long without Telegram all keys are gone through at once
_ASKED_PER_S = 5.0
_REMEMBER_EVERY = 20
# Telegram's words for somebody who has never been in the channel: no error, and no leaving either.
_STRANGER = ("participant_id_invalid", "user not found", "member not found", "user_id_invalid")


class Answer(enum.Enum):
    MEMBER = "a member"
    GONE = "left, or was removed"
    STRANGER = "never was there"
    UNKNOWN = "nobody knows"


@dataclass(frozen=True)
class Alarm:
    """What admins are told."""

    text: str
    why: str = ""


Tell = Callable[[Alarm], Awaitable[None]]


class Members:
    """`tell` reaches the admins."""

    def __init__(
        self,
        api: Api,
        daemon: DaemonClient,
        store: BotStore,
        *,
        settings: TelegramSettings,
        report: Report,
        tell: Tell,
    ) -> None:
        self._api = api
        self._daemon = daemon
        self._store = store
        self._settings = settings
        self._report = report
        self._tell = tell
        self._bot_id = 0
        self._sweep_now = asyncio.Event()
        self._wake = asyncio.Event()
        self._pace = Pace(_ASKED_PER_S)
        self.swept = (0, 0)  # keys gone through, of how many

    async def ask(self, account: int) -> Answer:
        """Telegram, now."""
        try:
            found = await self._api.member(self._settings.channel, account)
        except Unanswered:
            return Answer.UNKNOWN
        except Refused as exc:
            if any(word in str(exc).lower() for word in _STRANGER):
                return Answer.STRANGER
            await self._alarm(Alarm("alarm_channel", str(exc)))
            return Answer.UNKNOWN
        if found.is_member:
            return Answer.MEMBER
        return Answer.GONE if await self.look() else Answer.UNKNOWN

    async def look(self) -> bool:
        """Ask whether the bot is an admin, as it must be to know the members; admins and the log hear of a change."""
        try:
            found = await self._api.member(self._settings.channel, self._bot_id)
        except Unanswered:
            return False
        except Refused as exc:
            await self._alarm(Alarm("alarm_channel", str(exc)))
            return False
        if not found.is_admin:
            await self._alarm(Alarm("alarm_not_admin", f"it is {found.status}"))
            return False
        if self._report.recover("channel"):
            _log.info("the bot is an admin of the channel again")
            self.sweep_soon()  # updates were missed
            await self._tell(Alarm("all_well"))
        return True

    async def settle(self, account: int, answer: Answer) -> keys_pb2.Key | None:
        """Have the account's key be as the answer says; the key, as it is then."""
        key = await self._daemon.key(owner_of(account))
        if key is None or not key.id or key.state == keys_pb2.KEY_STATE_BANNED:
            return key
        if answer is Answer.MEMBER and key.lapsed:
            await self._daemon.resume(account, lapsed=True)
        elif answer is Answer.GONE and not key.lapsed:
            await self._daemon.lapse(account)
        else:
            return key
        return await self._daemon.key(owner_of(account))

    async def follow(self, task: Task) -> None:
        """A `chat_member` update: of those that are late or out of order, the newest counts."""
        if await self._daemon.key(owner_of(task.account)) is None:
            return
        if not self._store.is_news(task.account, task.date, task.update_id):
            return
        told = Answer.MEMBER if task.is_member else Answer.GONE
        if time.time() - task.date > _FRESH_S:
            asked = await self.ask(task.account)
            told = asked if asked in (Answer.MEMBER, Answer.GONE) else told
        await self.settle(task.account, told)

    async def run(self, bot_id: int) -> None:
        """Go through all keys, at least daily, for ever; look now and then whether the bot is an admin."""
        self._bot_id = bot_id
        if time.time() - self._store.number("polled") > _MISSED_S and self._store.number("polled"):
            self._sweep_now.set()
        while True:
            is_admin = await self.look()
            if is_admin and self._is_due():
                await self._sweep_once()
            look_in_s = _LOOK_EVERY_S if is_admin else _LOOK_AGAIN_S
            await self._rest(max(1.0, min(look_in_s, self._next_sweep - time.time())))

    def sweep_soon(self) -> None:
        """Go through all keys from the beginning: something was missed."""
        self._sweep_now.set()
        self._wake.set()

    def _is_due(self) -> bool:
        was_cut_short = self._store.number("sweep_after") > 0
        return self._sweep_now.is_set() or was_cut_short or time.time() >= self._next_sweep

    @property
    def _next_sweep(self) -> float:
        return self._store.number("sweep_began") + self._settings.sweep_every_s

    async def _sweep_once(self) -> None:
        """What the daemon cannot do now is left to the next time."""
        try:
            await self._sweep()
        except CraftError as exc:
            if exc.reason == "TELEGRAM_REFUSED":
                raise
            _log.error("the keys were not gone through", extra={"reason": exc.reason, "why": exc.message})

    async def _rest(self, wait_s: float) -> None:
        try:
            async with asyncio.timeout(wait_s):
                await self._wake.wait()
        except TimeoutError:
            return
        self._wake.clear()

    async def _sweep(self) -> None:
        """From where the last one was cut short, by account."""
        after = 0 if self._sweep_now.is_set() else int(self._store.number("sweep_after"))
        self._sweep_now.clear()
        if not after:
            self._store.set_numbers(sweep_began=time.time())
        accounts = sorted(account for key in await self._daemon.keys() if (account := _live_account(key)) is not None)
        for place, account in enumerate(accounts):
            self.swept = (place, len(accounts))
            if account <= after:
                continue
            await self._pace.take()
            answer = await self.ask(account)
            if answer is Answer.UNKNOWN and not await self.look():
                return  # gone on with later, from here
            if answer in (Answer.MEMBER, Answer.GONE):
                await self.settle(account, answer)
            if place % _REMEMBER_EVERY == 0:
                self._store.set_numbers(sweep_after=account)
            if self._sweep_now.is_set():
                return
        self._store.set_numbers(sweep_after=0, sweep_ended=time.time())
        self.swept = (len(accounts), len(accounts))
        _log.info("went through all keys", extra={"keys": len(accounts)})

    async def _alarm(self, alarm: Alarm) -> None:
        if self._report.trouble("channel", f"the channel's members are not known: {alarm.why}"):
            _log.error("the channel's members are not known", extra={"why": alarm.why})
            self._wake.set()  # it is looked at more often now
            await self._tell(alarm)


def _live_account(key: keys_pb2.Key) -> int | None:
    """Whose key it is, where that can change by a membership."""
    return account_of(key.owner) if key.id and key.state != keys_pb2.KEY_STATE_BANNED else None
