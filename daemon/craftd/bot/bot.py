"""The bot's loops: receive updates, do what they ask for account by account, follow memberships."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any

from craft_protos.reasons import CraftError
from craft_protos.settings import Settings
from telegram import User

from craftd.bot.api import Api, Refused, Unanswered, is_conflict, wait_of
from craftd.bot.daemon import DaemonClient
from craftd.bot.deliveries import Deliveries
from craftd.bot.drawing import Drawing
from craftd.bot.handlers import Handlers, why_of
from craftd.bot.members import Alarm, Members
from craftd.bot.report import Report
from craftd.bot.store import BotStore
from craftd.bot.task import ALLOWED_UPDATES, MEMBER, Asked, Task, asked_of, update_id_of
from craftd.bot.texts import Texts
from craftd.bot.wording import Wording

_log = logging.getLogger("craft.bot")
_LEAST_WAIT_S, _LONGEST_WAIT_S = 1.0, 60.0
_WINDOW_S = 60.0
_MOST_ACCOUNTS = 10_000  # whose commands are counted
_MOST_WAITING = 20  # of one account


class Bot:
    """The one bot of a data folder."""

    def __init__(
        self, settings: Settings, api: Api, daemon: DaemonClient, store: BotStore, *, texts: Texts, report: Report
    ) -> None:
        telegram = settings.telegram
        self._settings = telegram
        self._api = api
        self._daemon = daemon
        self._store = store
        self._report = report
        self._wording = Wording(texts, daemon, settings)
        self._members = Members(api, daemon, store, settings=telegram, report=report, tell=self._tell_admins)
        deliveries = Deliveries(api, daemon, store, texts, self._wording)
        drawing = Drawing(api, daemon, store, self._wording, telegram)
        self._handlers = Handlers(
            api, daemon, store, self._members, deliveries, drawing, self._wording, settings, report
        )
        self._flood = Flood(telegram.commands_per_minute)
        self._queues: dict[int, deque[Asked]] = {}

    async def run(self) -> None:
        """For ever. Raises TELEGRAM_REFUSED; UNAUTHENTICATED, NOT_ALLOWED where the daemon wants an admin's key."""
        await self._daemon.keys()
        me = await self._api.open()
        self._report.username = self._wording.username = me.username or ""
        _log.info("the bot is up", extra={"bot": me.username, "channel": self._settings.channel})
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                for task in self._store.unanswered():
                    self._queue(Asked(task))
                tasks.create_task(self._members.run(me.id), name="members")
                tasks.create_task(self._poll(me), name="poll")
        except BaseExceptionGroup as group:
            raise _first(group) from group

    # Receiving

    async def _poll(self, me: User) -> None:
        wait_s, is_well = _LEAST_WAIT_S, False  # until Telegram has answered once, it is not let wait
        while True:
            offset = int(self._store.number("next_update"))
            try:
                raw = await self._api.updates(offset, ALLOWED_UPDATES, waits=is_well)
            except Refused as exc:
                self._report.trouble("poll", f"Telegram refuses to send updates: {exc}")
                _log.error("Telegram refuses to send updates", extra={"why": str(exc)})
            except Unanswered as exc:
                await self._on_trouble(exc)
                wait_s = max(wait_s, wait_of(exc))
            else:
                self._on_answer()
                wait_s, is_well = _LEAST_WAIT_S, True
                await self._take(raw, me, offset)
                continue
            is_well = False
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)

    async def _on_trouble(self, exc: Unanswered) -> None:
        if not is_conflict(exc):
            _log.warning("no updates came", extra={"why": str(exc)})
            return
        if self._report.trouble("conflict", "somebody else receives this bot's updates: its token is used twice"):
            _log.error("somebody else receives this bot's updates", extra={"why": str(exc)})
            await self._tell_admins(Alarm("alarm_conflict"))

    def _on_answer(self) -> None:
        self._report.is_polling = True
        self._report.recover("poll")
        if self._report.recover("conflict"):
            _log.info("this bot alone receives its updates again")
        now = time.time()
        if now - self._store.number("polled") > _WINDOW_S:
            self._store.set_numbers(polled=now)

    async def _take(self, raw: list[Any], me: User, offset: int) -> None:
        """Store what a batch asks for; then it is Telegram's no more, and is done, once, whatever happens."""
        ids = [update_id for one in raw if (update_id := update_id_of(one)) is not None]
        if raw and not ids:
            _log.error("updates without numbers came", extra={"updates": len(raw)})
            await asyncio.sleep(_LEAST_WAIT_S)
            return
        if not ids:
            return
        asked = [found for one in raw if (found := self._decoded(one, me)) is not None]
        wanted = [one for one in asked if await self._is_within(one.task)]
        fresh = {task.update_id for task in self._store.accept(ids, [one.task for one in wanted], max(ids) + 1)}
        self._report.updates += len(ids)
        for one in wanted:
            if one.task.update_id in fresh:
                fresh.remove(one.task.update_id)  # a batch may hold one twice
                self._queue(one)
        if max(ids) < offset:
            await asyncio.sleep(_LEAST_WAIT_S)  # all of them have come before

    def _decoded(self, raw: Any, me: User) -> Asked | None:
        """None where it asks for nothing, or is no update as Telegram documents them."""
        if update_id_of(raw) is None:
            return None
        try:
            return asked_of(raw, self._api.bot, me, self._settings.channel)
        except (TypeError, ValueError, AttributeError, LookupError, OverflowError, OSError) as exc:
            _log.warning("an update could not be read", extra={"update": update_id_of(raw), "why": type(exc).__name__})
            return None

    async def _is_within(self, task: Task) -> bool:
        """Whether the account has not asked for too much; the first time it has, it is told."""
        if task.kind == MEMBER:
            return True
        if len(self._queues.get(task.account, ())) >= _MOST_WAITING:
            return False
        count = self._flood.count(task.account)
        if count == self._flood.limit + 1:
            _log.warning("an account sends too much", extra={"account": task.account})
            self._spawn(self._say(task.chat, "slow_down", limit=self._flood.limit), "slow down")
        return count <= self._flood.limit

    # Doing

    def _queue(self, asked: Asked) -> None:
        """One account's are done one after the other; a picture takes long, and nothing waits for it."""
        self._report.waiting += 1
        if asked.task.kind == "draw":
            self._spawn(self._do(asked), "draw")
            return
        queue = self._queues.get(asked.task.account)
        if queue is None:
            queue = self._queues[asked.task.account] = deque()
            self._spawn(self._work(asked.task.account, queue), "account")
        queue.append(asked)

    async def _work(self, account: int, queue: deque[Asked]) -> None:
        await asyncio.sleep(0)
        while queue:
            await self._do(queue[0])
            queue.popleft()
        del self._queues[account]

    async def _do(self, asked: Asked) -> None:
        task = asked.task
        try:
            await self._handlers.handle(asked)
        except Refused as exc:
            _log.info("Telegram refused an answer", extra={"command": task.kind, "why": str(exc)})
        except CraftError as exc:
            if exc.reason == "TELEGRAM_REFUSED":
                raise
            _log.error("a command failed", extra={"command": task.kind, "reason": exc.reason, "why": exc.message})
            if task.kind == MEMBER:
                self._members.sweep_soon()  # or a change of membership would be lost
            await self._apologize(task, why_of(exc))
        except Exception:  # one account's mistake is nobody else's
            _log.exception("a bug, in a command", extra={"command": task.kind})
            await self._apologize(task, "a bug in craft")
        self._store.answered(task.update_id)
        self._report.waiting -= 1

    async def _apologize(self, task: Task, why: str) -> None:
        if task.chat:
            await self._say(task.chat, "failed", why=why)

    async def _say(self, chat: int, name: str, **values: object) -> None:
        try:
            await self._handlers.say(chat, name, **values)
        except Refused as exc:
            _log.info("Telegram refused an answer", extra={"why": str(exc)})

    async def _tell_admins(self, alarm: Alarm) -> None:
        """Nobody waits for it: Telegram may be what is in trouble."""
        texts = self._wording.texts
        values = {"channel": self._wording.channel, "why": alarm.why}
        for account in self._settings.admin_accounts:
            known = {name: value for name, value in values.items() if f"{{{name}}}" in texts.templates[alarm.text]}
            self._spawn(self._say(account, alarm.text, **known), "alarm")

    def _spawn(self, coroutine: Any, name: str) -> None:
        self._tasks.create_task(coroutine, name=name)


class Flood:
    """Counts each account's commands of a minute. `clock`: seconds."""

    def __init__(self, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit = limit
        self._clock = clock
        self._windows: OrderedDict[int, tuple[float, int]] = OrderedDict()  # (since, how many)

    def count(self, account: int) -> int:
        """With one more."""
        now = self._clock()
        since, count = self._windows.pop(account, (now, 0))
        if now - since >= _WINDOW_S:
            since, count = now, 0
        self._windows[account] = (since, count + 1)
        if len(self._windows) > _MOST_ACCOUNTS:
            self._windows.popitem(last=False)
        return count + 1


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Of what ended the loops; the others were cancelled by it."""
    found = group.exceptions[0]
    return _first(found) if isinstance(found, BaseExceptionGroup) else found
