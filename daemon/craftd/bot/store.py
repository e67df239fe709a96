"""What the bot must remember over kill -9, in a database of its own: no names, no texts.

updates      received and not answered yet (`task`), or answered (null), so that none counts twice
deliveries   keys on their way to their owners; a row is wiped as soon as its key has been shown
memberships  the newest `chat_member` update of each account that has a key
meta         the next update's number, how far the sweep is, when Telegram last answered
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import apsw
from craft_protos.reasons import CraftError

from craftd.bot.task import Task

_VERSION = 1
_KEPT_S = 3 * 86400.0  # Telegram keeps an update for a day
_SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
CREATE TABLE updates (id INTEGER PRIMARY KEY, received REAL NOT NULL, task TEXT);
CREATE INDEX updates_by_age ON updates (received);
CREATE INDEX updates_unanswered ON updates (id) WHERE task IS NOT NULL;
CREATE TABLE deliveries (
    account INTEGER PRIMARY KEY,
    secret TEXT NOT NULL, -- the whole key, until it has been shown
    replaces TEXT NOT NULL, -- id of the key that ends with its creation
    message INTEGER -- that the key is written into
);
CREATE TABLE memberships (account INTEGER PRIMARY KEY, date INTEGER NOT NULL, update_id INTEGER NOT NULL);
"""


@dataclass(frozen=True)
class Delivery:
    """A key on its way."""

    account: int
    secret: str
    replaces: str = ""
    message: int | None = None

    def __repr__(self) -> str:
        return f"Delivery({self.account})"


class BotStore:
    """Every method is one transaction, on disk when it returns."""

    def __init__(self, path: Path) -> None:
        """Raises STORE_CORRUPT, STORE_NEWER, STORAGE_FAILED."""
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._connection = apsw.Connection(str(path))
            self._set_up()
        except (apsw.NotADBError, apsw.CorruptError) as exc:
            hint = f"move it away: the bot starts anew, and keys stay: mv {path} {path}.damaged"
            raise CraftError("STORE_CORRUPT", f"{path}: the bot's database is damaged ({exc})", hint) from exc
        except (apsw.Error, OSError) as exc:
            raise CraftError("STORAGE_FAILED", f"{path}: {exc}", "see that the folder can be written") from exc

    def close(self) -> None:
        self._connection.close()

    # Updates

    def accept(self, update_ids: Iterable[int], tasks: Iterable[Task], next_id: int) -> list[Task]:
        """Of a batch of updates, the tasks that are new."""
        now, new = time.time(), {task.update_id: task for task in tasks}
        fresh: list[Task] = []
        with self._connection:
            for update_id in update_ids:
                task = new.get(update_id)
                stored = None if task is None else json.dumps(asdict(task))
                self._execute("INSERT OR IGNORE INTO updates VALUES (?, ?, ?)", update_id, now, stored)
                if self._connection.changes() and task is not None:
                    fresh.append(task)
            self._execute("DELETE FROM updates WHERE received < ? AND task IS NULL", now - _KEPT_S)
            self._set("next_update", next_id)
        return fresh

    def unanswered(self) -> list[Task]:
        """In the order in which they came."""
        rows = self._connection.execute("SELECT task FROM updates WHERE task IS NOT NULL ORDER BY id")
        return [Task(**json.loads(str(row[0]))) for row in rows]

    def note(self, task: Task) -> None:
        """What an unanswered task has come to know (a job's id)."""
        with self._connection:
            self._execute("UPDATE updates SET task = ? WHERE id = ?", json.dumps(asdict(task)), task.update_id)

    def answered(self, update_id: int) -> None:
        with self._connection:
            self._execute("UPDATE updates SET task = NULL WHERE id = ?", update_id)

    # Deliveries

    def begin_delivery(self, delivery: Delivery) -> None:
        with self._connection:
            self._execute(
                "INSERT OR REPLACE INTO deliveries (account, secret, replaces) VALUES (?, ?, ?)",
                delivery.account,
                delivery.secret,
                delivery.replaces,
            )
        self._truncate()

    def delivery(self, account: int) -> Delivery | None:
        row = self._connection.execute(
            "SELECT account, secret, replaces, message FROM deliveries WHERE account = ?", (account,)
        ).get
        return None if row is None else Delivery(*row)

    def note_message(self, account: int, message: int) -> None:
        with self._connection:
            self._execute("UPDATE deliveries SET message = ? WHERE account = ?", message, account)

    def end_delivery(self, account: int, update_id: int) -> None:
        """The key has been shown, or will not be: it is wiped, and the update that asked for it is answered."""
        with self._connection:
            self._execute("DELETE FROM deliveries WHERE account = ?", account)
            self._execute("UPDATE updates SET task = NULL WHERE id = ?", update_id)
        self._truncate()

    # Memberships

    def is_news(self, account: int, date: int, update_id: int) -> bool:
        """Whether no newer update of that account's membership has come before; remembers it."""
        row = self._connection.execute("SELECT date, update_id FROM memberships WHERE account = ?", (account,)).get
        if row is not None and (date, update_id) <= (row[0], row[1]):
            return False
        with self._connection:
            self._execute("INSERT OR REPLACE INTO memberships VALUES (?, ?, ?)", account, date, update_id)
        return True

    def forget(self, account: int) -> None:
        with self._connection:
            self._execute("DELETE FROM deliveries WHERE account = ?", account)
            self._execute("DELETE FROM memberships WHERE account = ?", account)
        self._truncate()

    # Numbers

    def number(self, name: str) -> float:
        """0 where it was never set."""
        return float(self._connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).get or 0)

    def set_numbers(self, **values: float) -> None:
        with self._connection:
            for name, value in values.items():
                self._set(name, value)

    def _set(self, name: str, value: float) -> None:
        self._execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", name, value)

    def _execute(self, sql: str, *values: str | float | None) -> None:
        self._connection.execute(sql, values)

    def _truncate(self) -> None:
        """No copy of a key that is gone stays in the log."""
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _set_up(self) -> None:
        self._connection.set_busy_timeout(5000)
        for name, value in (("journal_mode", "wal"), ("synchronous", "full"), ("secure_delete", "on")):
            self._connection.pragma(name, value)
        version = int(self._connection.pragma("user_version"))
        if version > _VERSION:
            message = f"{self._path}: the bot's database was made by a newer craft (version {version})"
            raise CraftError("STORE_NEWER", message, "install that craft again")
        if version < _VERSION:
            with self._connection:
                self._connection.execute(_SCHEMA)
                self._connection.execute(f"PRAGMA user_version = {_VERSION}")
