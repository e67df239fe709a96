"""Who may be a worker here: the invitations, and the workers that joined by one."""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

import apsw
from craft_protos.reasons import CraftError, invalid

from craftd.store.database import Database

VALID_S = 15 * 60.0
_TOKEN_BYTES = 16
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,39}")
_LOCAL = re.compile(r"(cpu|mps|cuda|auto)([.-]?\d+)?")  # as workers of this machine are called
_MOST_INVITATIONS = 1000


@dataclass(frozen=True)
class Invitation:
    """`token` is told once: what is kept is its hash."""

    name: str
    token: str
    valid_s: float = VALID_S


class Roster:
    """In the store. `clock`: seconds since 1970."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    async def names(self) -> tuple[str, ...]:
        """Of the workers that have joined."""
        return await self._database.run(
            lambda connection: tuple(
                name for (name,) in connection.execute("SELECT name FROM fleet_workers ORDER BY name")
            )
        )

    async def invite(self, name: str) -> Invitation:
        """Let one worker join under that name. Raises INVALID_FIELD, NAME_TAKEN, RATE_LIMITED."""
        if not _NAME.fullmatch(name) or _LOCAL.fullmatch(name):
            hint = "letters, digits, dots and dashes, such as box-2; not cpu or cuda, as workers of this machine are"
            raise invalid("name", f"no worker can be called {name[:64]!r}", hint)
        token, now = secrets.token_hex(_TOKEN_BYTES), self._clock()

        def note(connection: apsw.Connection) -> None:
            if connection.execute("SELECT 1 FROM fleet_workers WHERE name = ?", (name,)).fetchone():
                message = f"a worker has joined as {name!r} already"
                raise CraftError("NAME_TAKEN", message, f"choose another name, or `craft fleet rm {name}`")
            connection.execute("DELETE FROM fleet_invitations WHERE expire_time < ? OR name = ?", (now, name))
            (count,) = connection.execute("SELECT count(*) FROM fleet_invitations").fetchone() or (0,)
            if count >= _MOST_INVITATIONS:
                message = f"{count} invitations are open, which is the most"
                raise CraftError("RATE_LIMITED", message, "wait a quarter of an hour")
            row = (_hash(token), name, now + VALID_S)
            connection.execute("INSERT INTO fleet_invitations VALUES (?, ?, ?)", row)

        await self._database.run(note)
        return Invitation(name, token)

    async def name_invited(self, token: str) -> str | None:
        """Whom a token invites: that it may be spent, nobody else can have. None for a wrong one."""
        now = self._clock()

        def look(connection: apsw.Connection) -> str | None:
            query = "SELECT name FROM fleet_invitations WHERE token_sha256 = ? AND expire_time >= ?"
            found = connection.execute(query, (_hash(token), now)).fetchone()
            return str(found[0]) if found else None

        return await self._database.run(look)

    async def join(self, token: str, serial: str) -> bool:
        """Spend the token for a worker with that certificate; False where it was spent meanwhile."""
        now = self._clock()

        def spend(connection: apsw.Connection) -> bool:
            query = "DELETE FROM fleet_invitations WHERE token_sha256 = ? AND expire_time >= ? RETURNING name"
            found = connection.execute(query, (_hash(token), now)).fetchall()
            if not found:
                return False
            row = (found[0][0], now, serial)
            connection.execute("INSERT OR REPLACE INTO fleet_workers VALUES (?, ?, ?, '')", row)
            return True

        return await self._database.run(spend)

    async def find(self, serial: str) -> str | None:
        """The name of the worker whose certificate that is; None for one that was removed.

        Where it is the latest, the one before is good for nothing from now on.
        """
        query = "SELECT name FROM fleet_workers WHERE serial = ?1 OR (former_serial = ?1 AND former_serial != '')"

        def look(connection: apsw.Connection) -> str | None:
            found = connection.execute(query, (serial,)).fetchone()
            connection.execute("UPDATE fleet_workers SET former_serial = '' WHERE serial = ?", (serial,))
            return str(found[0]) if found else None

        return await self._database.run(look)

    async def renew(self, name: str, shown: str, serial: str) -> None:
        """Its next certificate; the one that it shows now is good until the next one is shown."""

        def note(connection: apsw.Connection) -> None:
            row = (serial, shown, name)
            connection.execute("UPDATE fleet_workers SET serial = ?, former_serial = ? WHERE name = ?", row)

        await self._database.run(note)

    async def remove(self, name: str) -> bool:
        """Its certificate is good for nothing any more; False where there is no such worker, nor an invitation."""

        def forget(connection: apsw.Connection) -> bool:
            asked = "DELETE FROM fleet_invitations WHERE name = ? RETURNING name"
            joined = "DELETE FROM fleet_workers WHERE name = ? RETURNING name"
            invited = connection.execute(asked, (name,)).fetchall()
            return bool(connection.execute(joined, (name,)).fetchall() or invited)

        return await self._database.run(forget)


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()
