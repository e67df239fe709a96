"""What each command and button does. A handler may be run again after a crash: it begins anew."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from craft_protos import keys_pb2
from craft_protos.reasons import CraftError
from craft_protos.settings import Settings

from craftd.bot.api import Api, Refused
from craftd.bot.daemon import DaemonClient, account_of, owner_of
from craftd.bot.deliveries import Deliveries
from craftd.bot.drawing import CANCEL, Drawing
from craftd.bot.members import Answer, Members
from craftd.bot.report import Report
from craftd.bot.store import BotStore
from craftd.bot.task import BUTTON, KEY, MEMBER, Asked, Task
from craftd.bot.wording import Wording, moment

_log = logging.getLogger("craft.bot")
_PRIVATE = ("key", "replace", "status", "forget", "ban", "unsuspend", "stats")
_FOR_ADMINS = ("ban", "unsuspend", "stats")
_REPLACE, _FORGET, _NO = "replace", "forget", "no"


@dataclass(frozen=True)
class Handlers:
    api: Api
    daemon: DaemonClient
    store: BotStore
    members: Members
    deliveries: Deliveries
    drawing: Drawing
    wording: Wording
    settings: Settings
    report: Report

    async def handle(self, asked: Asked) -> None:
        """Raises Refused, and what the daemon refuses."""
        task = asked.task
        if task.kind == MEMBER:
            await self.members.follow(task)
        elif task.kind == BUTTON:
            await self._press(task)
        elif task.kind == "draw":
            await self.drawing.draw(asked)
        else:
            await self._command(task)

    async def say(self, chat: int, name: str, **values: object) -> None:
        for text in self.wording.texts.messages(name, **values):
            await self.api.send(chat, text)

    async def _command(self, task: Task) -> None:
        commands: dict[str, Callable[[Task], Awaitable[None]]] = {
            "start": self._help,
            "help": self._help,
            "key": self._key,
            "replace": self._replace,
            "status": self._status,
            "forget": self._forget,
            "ban": self._ban,
            "unsuspend": self._unsuspend,
            "stats": self._stats,
        }
        kind = task.kind
        if kind in _FOR_ADMINS and not self._is_admin(task.account):
            kind = ""
        if kind in _PRIVATE and not task.is_private:
            await self.say(task.chat, "private_only", link=self.wording.link)
        elif kind in commands:
            await commands[kind](task)
        else:
            await self.say(task.chat, "unknown")

    def _is_admin(self, account: int) -> bool:
        return account in self.settings.telegram.admin_accounts

    async def _help(self, task: Task) -> None:
        for text in await self.wording.help(is_admin=self._is_admin(task.account) and task.is_private):
            await self.api.send(task.chat, text)

    # Keys

    async def _key(self, task: Task) -> None:
        if (pending := self.deliveries.pending(task.account)) is not None:
            await self.deliveries.finish(pending, task)
            return
        key = await self.daemon.key(owner_of(task.account))
        if key is not None and key.state == keys_pb2.KEY_STATE_BANNED:
            await self.say(task.chat, "banned")
            return
        answer = await self.members.ask(task.account)
        key = await self.members.settle(task.account, answer)
        if answer is Answer.UNKNOWN and key is None:
            await self.say(task.chat, "cannot_tell", channel=self.wording.channel)
        elif answer in (Answer.GONE, Answer.STRANGER):
            await self.say(task.chat, "join", channel=self.wording.channel, invite=self.wording.invite)
        elif key is None:
            await self.deliveries.finish(self.deliveries.begin(task.account), task)
        if key is not None:
            await self._describe(task, key)

    async def _describe(self, task: Task, key: keys_pb2.Key) -> None:
        made = moment(key.create_time.seconds)
        await self.say(task.chat, "have_key", made=made, state=self.wording.state(key), id=key.id)

    async def _replace(self, task: Task) -> None:
        key = await self._replaceable(task)
        if key is not None:
            await self._question(task.chat, "replace_ask", "replace_yes", f"{_REPLACE}:{key.id}", id=key.id)

    async def _replaceable(self, task: Task) -> keys_pb2.Key | None:
        """The account's key; where it cannot be replaced, the account is told why."""
        key = await self.daemon.key(owner_of(task.account))
        refusal = _refusal(key)
        if refusal:
            await self.say(task.chat, refusal)
            return None
        answer = await self.members.ask(task.account)
        if answer is Answer.MEMBER:
            return key
        name = "cannot_tell" if answer is Answer.UNKNOWN else "join"
        await self.say(task.chat, name, channel=self.wording.channel, **_invited(name, self.wording.invite))
        return None

    async def _forget(self, task: Task) -> None:
        await self._question(task.chat, "forget_ask", "forget_yes", f"{_FORGET}:")

    async def _question(self, chat: int, ask: str, yes: str, data: str, **values: object) -> None:
        texts = self.wording.texts
        *first, last = texts.messages(ask, **values)
        for text in first:
            await self.api.send(chat, text)
        await self.api.send(chat, last, buttons=[(texts.line(yes), data), (texts.line("no"), f"{_NO}:")])

    # Buttons

    async def _press(self, task: Task) -> None:
        name, _, argument = task.argument.partition(":")
        if name == CANCEL:
            said = await self.drawing.cancel(task, argument)
            await self._answer(task, said)
            return
        await self._answer(task, "")
        if not task.is_private or task.chat != task.account:  # a question is its asker's
            return
        await self._unask(task)
        if name == _REPLACE:
            await self._replace_now(task, argument)
        elif name == _FORGET:
            await self._forget_now(task)
        else:
            await self.say(task.chat, "left_it")

    async def _answer(self, task: Task, text: str) -> None:
        try:
            await self.api.answer_button(task.query, text)
        except Refused as exc:
            _log.info("a button was not answered", extra={"why": str(exc)})

    async def _unask(self, task: Task) -> None:
        """The question goes, so that it is not answered again."""
        try:
            await self.api.delete(task.chat, task.message)
        except Refused as exc:
            _log.info("a question was not deleted", extra={"why": str(exc)})

    async def _replace_now(self, task: Task, key_id: str) -> None:
        if (pending := self.deliveries.pending(task.account)) is not None:
            await self.deliveries.finish(pending, task)
            return
        key = await self._replaceable(task)
        if key is None:
            return
        if key.id != key_id:
            await self.say(task.chat, "replace_gone")
            return
        await self.deliveries.finish(self.deliveries.begin(task.account, replaces=key_id), task)

    async def _forget_now(self, task: Task) -> None:
        gone = await self.daemon.forget(task.account)
        self.store.forget(task.account)
        name = "forgotten_held" if gone.key_kept else "forgotten"
        await self.say(task.chat, name, jobs=gone.jobs, images=gone.images, datasets=gone.datasets)
        key = await self.daemon.key(owner_of(task.account))
        if key is not None and key.state == keys_pb2.KEY_STATE_BANNED:
            await self.say(task.chat, "forgotten_banned")

    async def _status(self, task: Task) -> None:
        key = await self.daemon.key(owner_of(task.account))
        if key is None or not key.id:
            await self.say(task.chat, "no_key" if key is None else "banned")
            return
        used = await self.daemon.usage(task.account)
        await self.say(
            task.chat,
            "status",
            id=key.id,
            state=self.wording.state(used.key),
            requests=used.requests,
            most_requests=used.requests_per_minute,
            drawing=used.images_in_flight,
            most_drawing=used.most_images_in_flight,
            day=used.images_last_day,
            all=used.images,
        )

    # Admins

    async def _ban(self, task: Task) -> None:
        account = await self._named(task, "ban_how")
        if account is None:
            return
        await self.daemon.ban(owner_of(account))
        _log.info("an admin banned an account", extra={"admin": task.account, "account": account})
        await self.say(task.chat, "ban_done", account=account)

    async def _unsuspend(self, task: Task) -> None:
        account = await self._named(task, "unsuspend_how")
        if account is None:
            return
        key = await self.daemon.key(owner_of(account))
        if key is None:
            await self.say(task.chat, "unknown_account", account=account)
            return
        if key.state == keys_pb2.KEY_STATE_BANNED:
            await self.say(task.chat, "unsuspend_banned", account=account)
            return
        answer = await self.members.ask(account)
        await self.daemon.resume(account, lapsed=False)
        settled = await self.members.settle(account, answer)
        _log.info("an admin resumed a key", extra={"admin": task.account, "account": account})
        name = "unsuspend_left" if settled is not None and settled.lapsed else "unsuspend_done"
        channel = {"channel": self.wording.channel} if name == "unsuspend_left" else {}
        await self.say(task.chat, name, account=account, **channel)

    async def _named(self, task: Task, how: str) -> int | None:
        """The account that a command names; where it names none, its sender is told."""
        if not task.argument:
            await self.say(task.chat, how)
            return None
        if not task.argument.startswith(KEY):
            return int(task.argument)
        key_id = task.argument.removeprefix(KEY)
        key = await self.daemon.key(key_id)
        if key is None:
            await self.say(task.chat, "unknown_account", account=key_id)
            return None
        account = account_of(key.owner)
        if account is None:
            await self.say(task.chat, "not_an_account", owner=key.owner)
        return account

    async def _stats(self, task: Task) -> None:
        keys = [key for key in await self.daemon.keys() if account_of(key.owner) is not None]
        live = [key for key in keys if key.state != keys_pb2.KEY_STATE_BANNED]
        await self.say(
            task.chat,
            "stats",
            active=sum(key.state == keys_pb2.KEY_STATE_ACTIVE for key in live),
            lapsed=sum(key.lapsed for key in live),
            held=sum(key.held for key in live),
            banned=len(keys) - len(live),
            updates=self.report.updates,
            errors=self.report.api_errors,
            waiting=max(0, self.report.waiting - 1),  # besides this one
            sweep=self._sweep(),
        )

    def _sweep(self) -> str:
        store, texts = self.store, self.wording.texts
        began, ended = store.number("sweep_began"), store.number("sweep_ended")
        if not began:
            return texts.line("sweep_never")
        if ended >= began:
            return texts.line("sweep_whole", since=moment(ended))
        done, of = self.members.swept
        return texts.line("sweep_at", done=done, all=of, since=moment(began))


def _refusal(key: keys_pb2.Key | None) -> str:
    """Why a key cannot be replaced; "" where it can."""
    if key is None:
        return "no_key"
    if key.state == keys_pb2.KEY_STATE_BANNED:
        return "banned"
    if key.role == keys_pb2.KEY_ROLE_ADMIN:
        return "admin_key"
    return "held" if key.held else ""


def _invited(name: str, invite: str) -> dict[str, str]:
    return {"invite": invite} if name == "join" else {}


def why_of(exc: CraftError) -> str:
    """What its user is told of an error: no path, no address."""
    return exc.entry.meaning if exc.reason in ("INTERNAL", "STORAGE_FAILED", "CONFIG_INVALID") else exc.message
