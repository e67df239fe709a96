"""The LoRAs' rows. Functions of a connection, to be run by the store."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import apsw

from craftd.loras.lora import Look, Lora, Place
from craftd.workers.inspector import LoraFindings

_COLUMNS = (
    'id, name, sha256, path, is_owned, file_name, source, size_bytes, mtime_ns, inode, weight, "trigger", findings,'
    " create_time, owner, is_shared"
)


def every(connection: apsw.Connection) -> list[Lora]:
    """In the order in which they came."""
    return [_lora(row) for row in connection.execute(f"SELECT {_COLUMNS} FROM loras ORDER BY seq")]


def insert(connection: apsw.Connection, lora: Lora) -> None:
    connection.execute(
        f"INSERT INTO loras ({_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
        (lora.id, lora.name, lora.sha256, *_place(lora), *_changing(lora), _findings(lora), *_last(lora)),
    )


def update(connection: apsw.Connection, lora: Lora) -> None:
    """Where it lies, and what an edit changes."""
    connection.execute(
        "UPDATE loras SET name=?, path=?, is_owned=?, file_name=?, source=?, size_bytes=?, mtime_ns=?, inode=?,"
        ' weight=?, "trigger"=?, is_shared=? WHERE id=?',
        (lora.name, *_place(lora), *_changing(lora), lora.is_shared, lora.id),
    )


def set_preview(connection: apsw.Connection, lora_id: str, preview: bytes) -> None:
    connection.execute("UPDATE loras SET preview = ? WHERE id = ?", (preview, lora_id))


def preview(connection: apsw.Connection, lora_id: str) -> bytes:
    return bytes(connection.execute("SELECT preview FROM loras WHERE id = ?", (lora_id,)).get or b"")


def previewed(connection: apsw.Connection) -> set[str]:
    """Ids of those that have a preview."""
    return {str(row[0]) for row in connection.execute("SELECT id FROM loras WHERE preview IS NOT NULL")}


def delete(connection: apsw.Connection, lora_id: str) -> None:
    connection.execute("DELETE FROM loras WHERE id = ?", (lora_id,))


def _place(lora: Lora) -> tuple[Any, ...]:
    place = lora.place
    path = str(place.path).encode("utf-8", "surrogateescape")
    return (path, place.is_owned, lora.file_name, place.source, *_look(place.look))


def _look(look: Look) -> tuple[int, int, int]:
    return (look.size_bytes, look.mtime_ns, look.inode)


def _changing(lora: Lora) -> tuple[Any, ...]:
    return (lora.weight, lora.trigger)


def _last(lora: Lora) -> tuple[Any, ...]:
    return (lora.create_time, lora.owner, lora.is_shared)


def _findings(lora: Lora) -> str:
    return json.dumps(asdict(lora.findings))


def _lora(row: Any) -> Lora:
    path, is_owned, source = Path(row[3].decode("utf-8", "surrogateescape")), bool(row[4]), row[6]
    return Lora(
        id=row[0],
        name=row[1],
        file_name=row[5],
        weight=row[10],
        trigger=row[11],
        place=Place(path, Look(row[7], row[8], row[9]), source, is_owned),
        findings=LoraFindings(**json.loads(row[12])),
        create_time=row[13],
        owner=row[14],
        is_shared=bool(row[15]),
    )
