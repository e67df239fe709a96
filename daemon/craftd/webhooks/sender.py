"""Sends what is due. The store says what that is, so that a webhook outlives the daemon.

A URL may hear twice of a job's end (webhook-id is the job's), and never of a job that goes on.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from craft_protos.reasons import CraftError
from craft_protos.version import __version__

from craftd.jobs import store as jobs
from craftd.jobs.job import JobView
from craftd.store.database import Database
from craftd.webhooks import signing, store
from craftd.webhooks.store import Pending
from craftd.webhooks.targets import Targets

if TYPE_CHECKING:
    import httpx2

_log = logging.getLogger("craft.webhooks")
# After each try in vain, in webhooks.retry_s: with 5 s the last one waits 18 hours. Then it is given up.
WAITS = (1, 6, 24, 120, 720, 4320, 12960)
_LOOK_EVERY_S = 0.5
_TIMEOUT_S = 10.0
_AT_ONCE = 8
_GONE = 410
_UNWANTED = "it answered 410: it wants none of them"
Describe = Callable[[JobView], dict[str, Any]]


class Webhooks:
    """`describe`: a job as an object of JSON. `run` sends until it is cancelled."""

    def __init__(
        self, database: Database, targets: Targets, secret: bytes, describe: Describe, retry_s: float = 5.0
    ) -> None:
        self._database = database
        self._secret = secret
        self._describe = describe
        self._targets = targets
        self._retry_s = retry_s
        self._has_some = asyncio.Event()

    def check(self, url: str) -> None:
        """What a request says. Raises INVALID_FIELD, NOT_ALLOWED."""
        self._targets.check(url)

    def note(self) -> None:
        """A job came with one."""
        self._has_some.set()

    async def run(self) -> None:
        if not self._targets.is_on:
            return
        import httpx2

        self._has_some.set()  # an earlier daemon may have left some
        async with httpx2.AsyncClient(timeout=_TIMEOUT_S, follow_redirects=False) as client:
            while True:
                await self._has_some.wait()
                sent = await self._send_due(client)
                if not sent and not await self._database.run(store.has_some):
                    self._has_some.clear()
                elif sent < _AT_ONCE:
                    await asyncio.sleep(_LOOK_EVERY_S)

    async def _send_due(self, client: httpx2.AsyncClient) -> int:
        """How many were tried."""
        due = await self._database.run(lambda connection: store.due(connection, time.time(), _AT_ONCE))
        await asyncio.gather(*(self._send(client, one) for one in due))
        return len(due)

    async def _send(self, client: httpx2.AsyncClient, one: Pending) -> None:
        said = {"job": one.job_id, "host": one.url.split("/")[2], "tries": one.tries + 1}
        why = await self._try(client, one)
        if not why:
            _log.info("webhook sent", extra=said)
            return await self._database.run(lambda connection: store.drop(connection, one.job_id))
        if why == _UNWANTED or one.tries >= len(WAITS):
            _log.warning("webhook given up", extra=said | {"why": why})
            return await self._database.run(lambda connection: store.drop(connection, one.job_id))
        wait_s = WAITS[one.tries] * self._retry_s
        _log.warning("webhook in vain", extra=said | {"why": why, "again_in_s": wait_s})
        until = time.time() + wait_s
        return await self._database.run(lambda connection: store.put_off(connection, one, until))

    async def _try(self, client: httpx2.AsyncClient, one: Pending) -> str:
        """Why it failed; "" where it did not."""
        import httpx2

        try:
            self._targets.check(one.url)  # the configuration may have changed
            view = await self._database.run(partial(jobs.view, prefix=one.job_id))
            body = _body(self._describe(view), view)
            told = {"content-type": "application/json", "user-agent": f"craft/{__version__}"}
            told |= signing.headers(self._secret, one.job_id, int(time.time()), body)
            async with client.stream("POST", one.url, content=body, headers=told) as answer:
                if answer.status_code == _GONE:
                    return _UNWANTED
                return "" if answer.is_success else f"it answered {answer.status_code}"
        except httpx2.HTTPError as exc:
            return f"{type(exc).__name__}: {exc}"[:300]
        except CraftError as exc:
            return exc.message


def _body(job: dict[str, Any], view: JobView) -> bytes:
    ended = view.job.finish_time or view.job.create_time
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(ended))
    kind = f"job.{view.job.state.value.lower()}"
    return json.dumps({"type": kind, "timestamp": moment, "data": job}, ensure_ascii=False).encode()
