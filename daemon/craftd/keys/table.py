"""The keys' rows. Functions of a connection, to be run by the store."""

from __future__ import annotations

import dataclasses
import hmac
import time
from collections.abc import Mapping

import apsw
from craft_protos.reasons import CraftError

from craftd.keys.caller import Role
from craftd.keys.key import Key, folded

_BANNED = "EXISTS (SELECT 1 FROM banned_owners WHERE folded(banned_owners.owner) = folded(keys.owner))"


def load(connection: apsw.Connection) -> tuple[Key, ...]:
    """By owner; also those who are banned and have no key."""
    _know_folded(connection)
    rows = connection.execute(
        f"SELECT id, owner, role, tier, secret_sha256, create_time, is_suspended, {_BANNED}, last_used_time,"
        " is_lapsed FROM keys"
    )
    keys = [
        Key(row[0], row[1], Role(row[2]), row[3], row[4], row[5], bool(row[6]), bool(row[7]), row[8], bool(row[9]))
        for row in rows
    ]
    without = connection.execute(
        "SELECT owner, create_time FROM banned_owners"
        " WHERE NOT EXISTS (SELECT 1 FROM keys WHERE folded(keys.owner) = folded(banned_owners.owner))"
    )
    keys += [Key("", owner, Role.USER, "", b"", banned, is_banned=True) for owner, banned in without]
    return tuple(sorted(keys, key=lambda key: (key.owner.casefold(), key.owner)))


def insert(connection: apsw.Connection, key: Key) -> None:
    """Raises KEY_BANNED, KEY_EXISTS."""
    _know_folded(connection)
    if connection.execute("SELECT 1 FROM banned_owners WHERE folded(owner) = folded(?)", (key.owner,)).get:
        raise CraftError("KEY_BANNED", f"{key.owner} is banned, and gets no other key", "see `craft keys list`")
    held = connection.execute("SELECT id FROM keys WHERE folded(owner) = folded(?)", (key.owner,)).get
    if held is not None:
        raise CraftError(
            "KEY_EXISTS", f"{key.owner} has a key already ({held})", f"to give another: craft keys rm {held}"
        )
    connection.execute(
        "INSERT INTO keys (id, owner, role, tier, secret_sha256, create_time) VALUES (?, ?, ?, ?, ?, ?)",
        (key.id, key.owner, key.role.value, key.tier, key.secret_sha256, key.create_time),
    )


def insert_once(connection: apsw.Connection, key: Key, replaces: str) -> None:
    """Unless this very key is there; instead of the one with the id `replaces`, whose role and tier it gets.

    Raises KEY_BANNED, KEY_EXISTS, KEY_SUSPENDED.
    """
    _know_folded(connection)
    held = connection.execute("SELECT owner, secret_sha256 FROM keys WHERE id = ?", (key.id,)).get
    if held is not None:
        if folded(held[0]) == folded(key.owner) and hmac.compare_digest(held[1], key.secret_sha256):
            return
        raise CraftError("KEY_EXISTS", f"another key has the id {key.id}", "make a new one")
    old = connection.execute(
        "SELECT role, tier, is_suspended, is_lapsed FROM keys WHERE id = ? AND folded(owner) = folded(?)",
        (replaces, key.owner),
    ).get
    if old is None:
        insert(connection, key)
        return
    if old[2]:
        raise CraftError("KEY_SUSPENDED", "an admin suspended this key", "it can be replaced once it is resumed")
    connection.execute("DELETE FROM keys WHERE id = ?", (replaces,))
    insert(connection, dataclasses.replace(key, role=Role(old[0]), tier=old[1]))
    if old[3]:
        suspend(connection, key.id, lapsed=True)


def replace(connection: apsw.Connection, key: Key) -> None:
    """Instead of whatever key the owner has. Raises KEY_BANNED."""
    _know_folded(connection)
    connection.execute("DELETE FROM keys WHERE folded(owner) = folded(?) OR id = ?", (key.owner, key.id))
    insert(connection, key)


def suspend(connection: apsw.Connection, key_id: str, *, lapsed: bool) -> None:
    column = "is_lapsed" if lapsed else "is_suspended"
    connection.execute(f"UPDATE keys SET {column} = 1 WHERE id = ?", (key_id,))


def resume(connection: apsw.Connection, key_id: str, *, lapsed: bool) -> None:
    """An admin's word lifts everything, a subscription only its own lapse."""
    others = "" if lapsed else ", is_suspended = 0"
    connection.execute(f"UPDATE keys SET is_lapsed = 0{others} WHERE id = ?", (key_id,))


def ban(connection: apsw.Connection, owner: str) -> None:
    connection.execute("INSERT OR IGNORE INTO banned_owners VALUES (?, ?)", (owner, time.time()))


def delete(connection: apsw.Connection, key_id: str) -> None:
    connection.execute("DELETE FROM keys WHERE id = ?", (key_id,))


def note_used(connection: apsw.Connection, used: Mapping[str, float]) -> None:
    connection.executemany("UPDATE keys SET last_used_time = ? WHERE id = ?", [(at, key) for key, at in used.items()])


def _know_folded(connection: apsw.Connection) -> None:
    """Owners are compared as `folded` has them: SQLite's own NOCASE knows ASCII alone."""
    connection.create_scalar_function("folded", _folded, 1, deterministic=True)


def _folded(*given: int | float | bytes | str | None) -> str:
    (owner,) = given
    return folded(str(owner))
