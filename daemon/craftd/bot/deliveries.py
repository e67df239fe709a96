"""A key's way to its owner, so that it is made once, shown once, and not lost, whenever the bot is killed.

1. The bot makes the key and stores it.
2. It sends a message without the key, protected from being forwarded, and stores its number.
3. It has the daemon register the key; done twice, that is done once.
4. It writes the key into that message; done twice, that is done once.
5. It wipes its own copy.

Each step can be repeated after a crash. Only step 2 leaves something behind then: a message without a key.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from craft_protos import api_key, keys_pb2
from craft_protos.reasons import CraftError

from craftd.bot.api import Api, Refused
from craftd.bot.daemon import DaemonClient
from craftd.bot.store import BotStore, Delivery
from craftd.bot.task import Task
from craftd.bot.texts import Texts
from craftd.bot.wording import Wording

_log = logging.getLogger("craft.bot")
# Telegram's words for a message that its owner has deleted.
_NO_MESSAGE = ("message to edit not found", "message_id_invalid", "message can't be edited")


class Deliveries:
    def __init__(self, api: Api, daemon: DaemonClient, store: BotStore, texts: Texts, wording: Wording) -> None:
        self._api = api
        self._daemon = daemon
        self._store = store
        self._texts = texts
        self._wording = wording

    def pending(self, account: int) -> Delivery | None:
        return self._store.delivery(account)

    def begin(self, account: int, replaces: str = "") -> Delivery:
        delivery = Delivery(account, api_key.new().text, replaces)
        self._store.begin_delivery(delivery)
        return delivery

    async def finish(self, delivery: Delivery, task: Task) -> None:
        """From wherever it is. Raises Refused where the owner cannot be written to: it is gone on with at /key."""
        if delivery.message is None:
            delivery = await self._open(delivery)
        try:
            key = await self._daemon.create_key(delivery.account, delivery.secret, delivery.replaces)
        except CraftError as exc:
            if exc.reason not in ("KEY_BANNED", "KEY_EXISTS", "KEY_SUSPENDED"):
                raise
            await self._show(delivery, self._refusal(exc.reason))
        else:
            if not await self._write(delivery, key):
                await self._again(delivery, task)
                return
        self._store.end_delivery(delivery.account, task.update_id)

    async def _open(self, delivery: Delivery) -> Delivery:
        message = 0
        for text in self._texts.messages("placeholder"):
            message = await self._api.send(delivery.account, text, is_protected=True)
        self._store.note_message(delivery.account, message)
        return replace(delivery, message=message)

    async def _write(self, delivery: Delivery, key: keys_pb2.Key) -> bool:
        """False where the message is gone."""
        if key.state == keys_pb2.KEY_STATE_BANNED:
            return await self._show(delivery, "banned")
        return await self._edit(delivery, await self._wording.key(delivery.secret))

    async def _show(self, delivery: Delivery, name: str) -> bool:
        return await self._edit(delivery, self._texts.messages(name)[0])

    async def _edit(self, delivery: Delivery, text: str) -> bool:
        assert delivery.message is not None
        try:
            await self._api.edit(delivery.account, delivery.message, text)
        except Refused as exc:
            if any(word in str(exc).lower() for word in _NO_MESSAGE):
                return False
            raise
        return True

    async def _again(self, delivery: Delivery, task: Task) -> None:
        """The message was deleted, and who knows what was read there: that key ends, another one is shown."""
        shown = api_key.parse(delivery.secret)
        assert shown is not None
        _log.info("a message was deleted before its key was shown", extra={"key": shown.id})
        await self.finish(self.begin(delivery.account, replaces=shown.id), task)

    @staticmethod
    def _refusal(reason: str) -> str:
        return {"KEY_BANNED": "banned", "KEY_SUSPENDED": "held"}.get(reason, "replace_gone")
