"""The models' rows. Functions of a connection, to be run by the store."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from pathlib import Path

import apsw

from craftd.models.place import Place


def every(connection: apsw.Connection) -> list[Place]:
    rows = connection.execute("SELECT name, path, source, files FROM models ORDER BY name")
    return [Place(name, _path(path), source, _files(files), is_registered=True) for name, path, source, files in rows]


def aliases(connection: apsw.Connection) -> dict[str, str]:
    return {alias: model for alias, model in connection.execute("SELECT alias, model FROM model_aliases")}


def insert(connection: apsw.Connection, place: Place) -> None:
    files = None if place.files is None else list(place.files)
    connection.execute(
        "INSERT INTO models VALUES (?, ?, ?, ?, ?)",
        (place.name, _bytes(place.path), place.source, json.dumps(files), time.time()),
    )


def delete(connection: apsw.Connection, name: str) -> None:
    connection.execute("DELETE FROM models WHERE name = ?", (name,))
    connection.execute("DELETE FROM model_aliases WHERE model = ?", (name,))


def set_alias(connection: apsw.Connection, alias: str, model: str) -> None:
    connection.execute("INSERT OR REPLACE INTO model_aliases VALUES (?, ?)", (alias, model))


def delete_alias(connection: apsw.Connection, alias: str) -> None:
    connection.execute("DELETE FROM model_aliases WHERE alias = ?", (alias,))


def note_downloads(connection: apsw.Connection, paths: Iterable[Path]) -> None:
    connection.executemany("INSERT OR IGNORE INTO model_downloads VALUES (?)", [(_bytes(path),) for path in paths])


def downloads(connection: apsw.Connection) -> set[Path]:
    return {_path(path) for (path,) in connection.execute("SELECT path FROM model_downloads")}


def forget_downloads(connection: apsw.Connection, paths: Iterable[Path]) -> None:
    connection.executemany("DELETE FROM model_downloads WHERE path = ?", [(_bytes(path),) for path in paths])


def _bytes(path: Path) -> bytes:
    return os.fsencode(path)


def _path(stored: bytes) -> Path:
    return Path(os.fsdecode(stored))


def _files(stored: str) -> tuple[str, ...] | None:
    files = json.loads(stored)
    return None if files is None else tuple(files)
