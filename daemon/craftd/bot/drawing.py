"""/draw: a job of the caller's own, within the quota of the caller's key, and its picture as a reply."""

from __future__ import annotations

from dataclasses import replace

from craft_protos import jobs_pb2, keys_pb2
from craft_protos.reasons import CraftError
from craft_protos.settings import TelegramSettings

from craftd.bot.api import Api, Refused
from craftd.bot.daemon import DaemonClient, owner_of
from craftd.bot.store import BotStore
from craftd.bot.task import PROMPT, Asked, Task
from craftd.bot.wording import Wording

CANCEL = "cancel"
_CAUSES = ("KEY_SUSPENDED", "KEY_BANNED", "UNKNOWN_KEY")  # of a draw that no key stands for


class Drawing:
    def __init__(
        self, api: Api, daemon: DaemonClient, store: BotStore, wording: Wording, settings: TelegramSettings
    ) -> None:
        self._api = api
        self._daemon = daemon
        self._store = store
        self._wording = wording
        self._settings = settings

    async def draw(self, asked: Asked) -> None:
        """From CreateJob to the picture; after a restart, from the job on."""
        task = asked.task
        if not self._settings.draw:
            await self._say(task, "draw_off")
            return
        try:
            if not task.job:
                task = await self._begin(task, asked.prompt)
            if task.job:
                await self._finish(task)
        except CraftError as exc:
            await self._refuse(task, exc)

    async def cancel(self, task: Task, job_id: str) -> str:
        """What is said to whoever pressed the button."""
        try:
            await self._daemon.cancel(task.account, job_id)
        except CraftError as exc:
            return self._wording.texts.line("too_late" if exc.reason == "JOB_FINISHED" else "not_yours")
        return self._wording.texts.line("draw_cancelled")

    async def _begin(self, task: Task, prompt: str) -> Task:
        """With its job, and the message that can cancel it; without, where there is none."""
        request_id = f"telegram-{task.update_id}"
        job = await self._daemon.job_of(task.account, request_id)  # made before a crash, perhaps
        if not job and not prompt:
            await self._say(task, "draw_lost" if task.argument == PROMPT else "draw_how")
            return task
        job = job or await self._daemon.draw(task.account, prompt, request_id)
        task = replace(task, job=job)
        self._store.note(task)
        texts = self._wording.texts
        buttons = [(texts.line("draw_cancel"), f"{CANCEL}:{job}")]
        status = await self._api.send(task.chat, texts.messages("draw_begun")[0], buttons=buttons)
        task = replace(task, status=status)
        self._store.note(task)
        return task

    async def _finish(self, task: Task) -> None:
        job = await self._daemon.finished(task.account, task.job)
        if job.state == jobs_pb2.JOB_STATE_SUCCEEDED and job.images:
            picture = await self._daemon.picture(task.account, job.images[0].id)
            caption = self._wording.texts.messages("draw_done", seed=job.images[0].seed)[0]
            await self._api.send_picture(task.chat, task.message, picture, caption)
        elif job.state == jobs_pb2.JOB_STATE_CANCELLED:
            await self._say(task, "draw_cancelled")
        else:
            await self._say(task, "draw_failed", why=job.error.message or "the picture was deleted")
        await self._clear(task)

    async def _refuse(self, task: Task, exc: CraftError) -> None:
        """In the words that the key's state has here."""
        if exc.reason not in _CAUSES:
            await self._say(task, "draw_failed", why=exc.message)
            return
        key = await self._daemon.key(owner_of(task.account))
        if key is None or not key.id:
            await self._say(task, "no_key" if key is None else "banned")
        elif key.state == keys_pb2.KEY_STATE_ACTIVE:
            await self._say(task, "failed", why=exc.message)
        else:
            await self._say(task, "draw_failed", why=f"your key is {self._wording.state(key)}")

    async def _clear(self, task: Task) -> None:
        """The message with the button goes: nothing is left to cancel."""
        if task.status:
            try:
                await self._api.delete(task.chat, task.status)
            except Refused:
                return  # it is gone

    async def _say(self, task: Task, name: str, **values: object) -> None:
        for text in self._wording.texts.messages(name, **values):
            await self._api.send(task.chat, text)
