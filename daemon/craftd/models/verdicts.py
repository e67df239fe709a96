"""Which models may be opened: checked at first sight, remembered for as long as they look the same."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import apsw
from craft_protos.reasons import CraftError

from craftd.models.looks import look
from craftd.store.database import Database
from craftd.supervisor.inspector import Inspect, Verdict

_log = logging.getLogger("craft.models")
_MOST_AT_ONCE = 2


@dataclass(frozen=True)
class _Known:
    look: str
    verdict: Verdict


class Verdicts:
    def __init__(self, database: Database, inspect: Inspect) -> None:
        self._database = database
        self._inspect = inspect
        self._known: dict[Path, _Known] = {}
        self._locks: defaultdict[Path, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._room = asyncio.Semaphore(_MOST_AT_ONCE)

    async def of(self, folder: Path) -> Verdict:
        """What is wrong with the model in a folder; also where the check itself failed."""
        async with self._locks[folder]:  # fifty requests for a new model have it checked once
            try:
                return await self._of(folder, await asyncio.to_thread(look, folder))
            except OSError as exc:
                return Verdict(
                    "CORRUPT_FILE", f"{folder} cannot be read: {exc.strerror}", "see that craftd may read it"
                )
            except CraftError as exc:
                _log.error("a model could not be checked", extra={"folder": str(folder), "why": exc.message})
                return Verdict(exc.reason, exc.message, exc.hint)

    async def _of(self, folder: Path, now: str) -> Verdict:
        known = self._known.get(folder) or await self._database.run(lambda connection: _select(connection, folder))
        if known is None or known.look != now:
            async with self._room:
                known = _Known(now, await self._inspect(folder))
            _log.info("model checked", extra={"folder": str(folder), "reason": known.verdict.reason or "none"})
            await self._remember(folder, known)
        self._known[folder] = known
        return known.verdict

    async def _remember(self, folder: Path, known: _Known) -> None:
        await self._database.run(lambda connection: _upsert(connection, folder, known))


def _select(connection: apsw.Connection, folder: Path) -> _Known | None:
    found = connection.execute(
        "SELECT look, reason, message, hint FROM verdicts WHERE folder = ?", (_key(folder),)
    ).fetchone()
    return None if found is None else _Known(str(found[0]), Verdict(*map(str, found[1:])))


def _upsert(connection: apsw.Connection, folder: Path, known: _Known) -> None:
    verdict = known.verdict
    connection.execute(
        "INSERT OR REPLACE INTO verdicts VALUES (?, ?, ?, ?, ?)",
        (_key(folder), known.look, verdict.reason, verdict.message, verdict.hint),
    )


def _key(folder: Path) -> str:
    return str(folder).encode("utf-8", "backslashreplace").decode()
