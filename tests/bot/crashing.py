"""`python -m tests.bot.crashing N KIND ACCOUNT`: the bot, which kills itself (SIGKILL) at the N-th of its steps.

A step is the moment before or after anything that somebody else sees: a transaction of the bot's database, a
call to the daemon, a call to Telegram. They are counted while the account's first update of that kind is done.
"""

from __future__ import annotations

import functools
import itertools
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from craftd.bot import __main__ as main
from craftd.bot.api import Api
from craftd.bot.daemon import DaemonClient
from craftd.bot.store import BotStore
from craftd.bot.task import Task

_STORE = ("note", "begin_delivery", "note_message", "end_delivery", "is_news", "forget")
_API = ("send", "edit", "delete", "answer_button", "member", "send_picture")


class Steps:
    def __init__(self, last: int, kind: str, account: int) -> None:
        self._last = last
        self._kind = kind
        self._account = account
        self._steps = itertools.count()
        self._counted = 0  # the update

    def begin(self, tasks: list[Task]) -> None:
        for task in tasks:
            if (task.kind, task.account) == (self._kind, self._account) and not self._counted:
                self._counted = task.update_id

    def end(self, update_id: int) -> None:
        if update_id == self._counted:
            self._counted = -1

    def pass_one(self) -> None:
        if self._counted > 0 and next(self._steps) == self._last:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, owner: type, name: str) -> None:
        plain: Callable[..., Any] = getattr(owner, name)

        @functools.wraps(plain)
        def call(*args: Any, **more: Any) -> Any:
            self.pass_one()
            answer = plain(*args, **more)
            self.pass_one()
            return answer

        setattr(owner, name, call)

    def around_awaited(self, owner: type, name: str) -> None:
        plain: Callable[..., Any] = getattr(owner, name)

        @functools.wraps(plain)
        async def call(*args: Any, **more: Any) -> Any:
            self.pass_one()
            answer = await plain(*args, **more)
            self.pass_one()
            return answer

        setattr(owner, name, call)


def _around_an_update(steps: Steps) -> None:
    accept, answered = BotStore.accept, BotStore.answered

    def begin(self: BotStore, update_ids: Any, tasks: Any, next_id: int) -> Any:
        tasks = list(tasks)
        steps.begin(tasks)
        steps.pass_one()
        answer = accept(self, update_ids, tasks, next_id)
        steps.pass_one()
        return answer

    def end(self: BotStore, update_id: int) -> None:
        steps.pass_one()
        answered(self, update_id)
        steps.pass_one()
        steps.end(update_id)

    BotStore.accept = begin  # type: ignore[method-assign]
    BotStore.answered = end  # type: ignore[method-assign]


if __name__ == "__main__":
    steps = Steps(int(sys.argv.pop(1)), sys.argv.pop(1), int(sys.argv.pop(1)))
    for name in _STORE:
        steps.around(BotStore, name)
    for name in _API:
        steps.around_awaited(Api, name)
    steps.around_awaited(DaemonClient, "_call")
    _around_an_update(steps)
    main.main()
