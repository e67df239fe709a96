"""Which models may be opened: inspected at first sight, remembered for as long as their fingerprint is the same."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import stat
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import apsw
from craft_protos.reasons import CraftError

from craftd.store.database import Database
from craftd.workers.inspector import Inspect, Verdict

_log = logging.getLogger("craft.models")
_MOST_AT_ONCE = 2
_CHECK = "2"  # raised with every change of craftd.worker.inspection: old verdicts count no more
_MOST_ENTRIES = 20_001  # one more than the check allows, so that it sees what we leave out
_Entry = tuple[str, os.stat_result]


@dataclass(frozen=True)
class _Known:
    fingerprint: str
    verdict: Verdict


class InspectionCache:
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
                return await self._of(folder, await asyncio.to_thread(fingerprint, folder))
            except OSError as exc:
                return Verdict(
                    "CORRUPT_FILE", f"{folder} cannot be read: {exc.strerror}", "see that craftd may read it"
                )
            except CraftError as exc:
                _log.error("a model could not be checked", extra={"folder": str(folder), "why": exc.message})
                return Verdict(exc.reason, exc.message, exc.hint)

    async def _of(self, folder: Path, now: str) -> Verdict:
        known = self._known.get(folder) or await self._database.run(lambda connection: _select(connection, folder))
        if known is None or known.fingerprint != now:
            async with self._room:
                known = _Known(now, await self._inspect(folder))
            _log.info("model checked", extra={"folder": str(folder), "reason": known.verdict.reason or "none"})
            await self._remember(folder, known)
        self._known[folder] = known
        return known.verdict

    async def _remember(self, folder: Path, known: _Known) -> None:
        await self._database.run(lambda connection: _upsert(connection, folder, known))


def fingerprint(folder: Path) -> str:
    """A digest of every entry's name, kind, size, time and inode: nothing is opened. Raises OSError."""
    root = Path(os.path.realpath(folder))
    digest = hashlib.sha256(f"{_CHECK}\n{root}\n".encode("utf-8", "surrogateescape"))
    for name, status in sorted(_entries(root), key=lambda entry: entry[0]):
        line = f"{name}\0{status.st_mode}\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_ino}\n"
        digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _entries(root: Path) -> Iterator[_Entry]:
    """Links twice: themselves, and what they lead to."""
    if not root.is_dir():
        yield str(root), root.lstat()
        return
    count, waiting = 0, [root]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                count += 1
                if count > _MOST_ENTRIES:
                    return
                own = entry.stat(follow_symlinks=False)
                yield entry.path, own
                if stat.S_ISLNK(own.st_mode):
                    yield from _target(Path(entry.path))
                elif stat.S_ISDIR(own.st_mode):
                    waiting.append(Path(entry.path))


def _target(link: Path) -> Iterator[_Entry]:
    real = os.path.realpath(link)
    try:
        yield f"{link} -> {real}", Path(real).lstat()
    except OSError:
        yield f"{link} -> {real}, which is not there", link.lstat()


def _select(connection: apsw.Connection, folder: Path) -> _Known | None:
    found = connection.execute(
        "SELECT look, reason, message, hint FROM verdicts WHERE folder = ?", (_key(folder),)
    ).fetchone()
    return None if found is None else _Known(str(found[0]), Verdict(*map(str, found[1:])))


def _upsert(connection: apsw.Connection, folder: Path, known: _Known) -> None:
    verdict = known.verdict
    connection.execute(
        "INSERT OR REPLACE INTO verdicts VALUES (?, ?, ?, ?, ?)",
        (_key(folder), known.fingerprint, verdict.reason, verdict.message, verdict.hint),
    )


def _key(folder: Path) -> str:
    return str(folder).encode("utf-8", "backslashreplace").decode()
