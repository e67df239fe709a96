"""The models' rows. Functions of a connection, to be run by the store."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from pathlib import Path

import apsw

from craftd.models import part_table
from craftd.models.model import ModelSource


def every(connection: apsw.Connection) -> list[ModelSource]:
    rows = connection.execute("SELECT name, path, source, files FROM models ORDER BY name")
    return [
        ModelSource(name, _path(path), source, _files(files), is_registered=True) for name, path, source, files in rows
    ]


def aliases(connection: apsw.Connection) -> dict[str, str]:
    return {alias: model for alias, model in connection.execute("SELECT alias, model FROM model_aliases")}


def predictions(connection: apsw.Connection) -> dict[str, str]:
    """What users said that models predict."""
    return {model: said for model, said in connection.execute("SELECT model, prediction FROM model_predictions")}


def precisions(connection: apsw.Connection) -> dict[str, str]:
    """What users said that models are kept in."""
    return {model: said for model, said in connection.execute("SELECT model, precision FROM model_precisions")}


def set_sayings(connection: apsw.Connection, model: str, prediction: str, precision: str) -> None:
    """What its user says of it; "" takes it back."""
    _say(connection, "model_predictions", model, prediction)
    _say(connection, "model_precisions", model, precision)


def _say(connection: apsw.Connection, table: str, model: str, said: str) -> None:
    if said:
        connection.execute(f"INSERT OR REPLACE INTO {table} VALUES (?, ?)", (model, said))
    else:
        connection.execute(f"DELETE FROM {table} WHERE model = ?", (model,))


def insert(connection: apsw.Connection, place: ModelSource) -> None:
    files = None if place.files is None else list(place.files)
    connection.execute(
        "INSERT INTO models VALUES (?, ?, ?, ?, ?)",
        (place.name, _bytes(place.path), place.source, json.dumps(files), time.time()),
    )
    set_sayings(connection, place.name, place.prediction, place.precision)
    part_table.use(connection, place.name, dict(place.parts))


def delete(connection: apsw.Connection, name: str) -> None:
    connection.execute("DELETE FROM models WHERE name = ?", (name,))
    connection.execute("DELETE FROM model_aliases WHERE model = ?", (name,))
    set_sayings(connection, name, "", "")
    part_table.use(connection, name, {})


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
