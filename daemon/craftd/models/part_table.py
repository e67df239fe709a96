"""The parts' rows, and which models use them. Functions of a connection, to be run by the store."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

import apsw

from craftd.models.part import Part


def every(connection: apsw.Connection) -> list[Part]:
    rows = connection.execute(
        "SELECT name, path, kind, sha256, source, tokenizer, is_downloaded FROM parts ORDER BY name"
    )
    return [
        Part(name, _path(path), kind, sha256, source, tokenizer and _path(tokenizer), bool(is_downloaded))
        for name, path, kind, sha256, source, tokenizer, is_downloaded in rows
    ]


def used(connection: apsw.Connection) -> dict[str, dict[str, str]]:
    """Model -> component -> part."""
    found: dict[str, dict[str, str]] = {}
    for model, component, part in connection.execute("SELECT model, component, part FROM model_parts"):
        found.setdefault(model, {})[component] = part
    return found


def insert(connection: apsw.Connection, part: Part) -> None:
    connection.execute(
        "INSERT INTO parts VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            part.name,
            os.fsencode(part.path),
            part.kind,
            part.sha256,
            part.source,
            None if part.tokenizer is None else os.fsencode(part.tokenizer),
            part.is_downloaded,
            time.time(),
        ),
    )


def delete(connection: apsw.Connection, name: str) -> None:
    connection.execute("DELETE FROM parts WHERE name = ?", (name,))


def use(connection: apsw.Connection, model: str, parts: Mapping[str, str]) -> None:
    """Those instead of what it used before."""
    connection.execute("DELETE FROM model_parts WHERE model = ?", (model,))
    rows = [(model, component, part) for component, part in parts.items()]
    connection.executemany("INSERT INTO model_parts VALUES (?, ?, ?)", rows)


def _path(stored: bytes) -> Path:
    return Path(os.fsdecode(stored))
