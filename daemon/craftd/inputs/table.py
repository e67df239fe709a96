"""The inputs' rows. Functions of a connection, to be run by the store."""

from __future__ import annotations

from dataclasses import astuple, fields
from typing import Any

import apsw

from craftd.inputs.input import Input

_COLUMNS = ", ".join(field.name for field in fields(Input))
# Whatever a job that waits or runs names by a hash, it needs: pictures are among these.
_NEEDED = (
    "(SELECT told.value FROM jobs, json_tree(jobs.spec) AS told"
    " WHERE jobs.state IN ('QUEUED', 'RUNNING') AND told.key = 'sha256')"
)


def put(connection: apsw.Connection, one: Input) -> None:
    """New, or used again."""
    places = ", ".join("?" for _ in fields(Input))
    connection.execute(f"INSERT OR REPLACE INTO inputs ({_COLUMNS}) VALUES ({places})", astuple(one))


def find(connection: apsw.Connection, sha256: str, scope: str, owner: str) -> Input | None:
    """The owner's, or another that the scope holds; "": anybody's."""
    row: Any = connection.execute(
        f"SELECT {_COLUMNS} FROM inputs WHERE sha256 = ?1 AND (?2 = '' OR owner = ?2)"
        " ORDER BY owner = ?3 DESC, use_time DESC LIMIT 1",
        (sha256, scope, owner),
    ).get
    if row is None:
        return None
    named = dict(zip((field.name for field in fields(Input)), row, strict=True))
    return Input(**{**named, "has_alpha": bool(named["has_alpha"])})


def stored_bytes(connection: apsw.Connection, owner: str) -> int:
    return int(connection.execute("SELECT ifnull(sum(size_bytes), 0) FROM inputs WHERE owner = ?", (owner,)).get)


def make_room(connection: apsw.Connection, owner: str, bytes_: int, before: float) -> int:
    """Forget an owner's oldest that no job needs and that were not used since, until so many bytes are free; or not.

    How many bytes that gave.
    """
    old: Any = connection.execute(
        f"SELECT sha256, size_bytes FROM inputs WHERE owner = ? AND use_time < ? AND sha256 NOT IN {_NEEDED}"
        " ORDER BY use_time",
        (owner, before),
    ).fetchall()
    freed = 0
    for sha256, size_bytes in old:
        if freed >= bytes_:
            break
        connection.execute("DELETE FROM inputs WHERE owner = ? AND sha256 = ?", (owner, sha256))
        freed += int(size_bytes)
    return freed


def note_needed(connection: apsw.Connection, now: float) -> None:
    """What jobs need is in use."""
    connection.execute(f"UPDATE inputs SET use_time = max(use_time, ?) WHERE sha256 IN {_NEEDED}", (now,))


def hashes(connection: apsw.Connection) -> set[str]:
    """Of every picture that somebody has."""
    return {str(row[0]) for row in connection.execute("SELECT DISTINCT sha256 FROM inputs")}


def forgettable(connection: apsw.Connection, before: float) -> tuple[int, int]:
    """(pictures, bytes) that `forget` would leave without an owner."""
    row: Any = connection.execute(
        "SELECT count(*), coalesce(sum(size_bytes), 0) FROM (SELECT size_bytes FROM inputs"
        f" WHERE sha256 NOT IN {_NEEDED} GROUP BY sha256 HAVING max(use_time) < ?)",
        (before,),
    ).get
    return int(row[0]), int(row[1])


def forget_all(connection: apsw.Connection, owner: str) -> None:
    connection.execute("DELETE FROM inputs WHERE owner = ?", (owner,))


def forget(connection: apsw.Connection, before: float) -> int:
    """Delete those that were not used since, and that no job needs; how many."""
    connection.execute(f"DELETE FROM inputs WHERE use_time < ? AND sha256 NOT IN {_NEEDED}", (before,))
    return connection.changes()
