"""The datasets' rows. Functions of a connection, to be run by the store."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection
from typing import Any

import apsw
from craft_protos.reasons import CraftError
from craft_protos.train import Picture

from craftd.datasets.dataset import BadPicture, Dataset

_PICTURE = "file_name, sha256, size_bytes, width, height, caption, repeats, mask_sha256, mask_bytes"
_FILES = (  # of all datasets: pictures and masks
    "(SELECT dataset, sha256, size_bytes FROM dataset_pictures UNION ALL"
    " SELECT dataset, mask_sha256, mask_bytes FROM dataset_pictures WHERE mask_sha256 <> '')"
)


def put(connection: apsw.Connection, dataset: Dataset) -> None:
    """New, or the same again: then it is as new."""
    connection.execute("DELETE FROM datasets WHERE owner = ? AND id = ?", (dataset.owner, dataset.id))
    connection.execute(
        "INSERT INTO datasets (id, owner, left_out, create_time) VALUES (?,?,?,?)",
        (dataset.id, dataset.owner, _left_out(dataset), dataset.create_time),
    )
    seq = connection.last_insert_rowid()
    connection.executemany(
        f"INSERT INTO dataset_pictures (dataset, place, {_PICTURE}) VALUES (?,?,?,?,?,?,?,?,?,?,?)",
        [(seq, place, *dataclasses.astuple(one)) for place, one in enumerate(dataset.pictures)],
    )


def find(connection: apsw.Connection, dataset_id: str, scope: str, owner: str) -> Dataset:
    """The owner's, or the newest that the scope holds; "": anybody's. Raises UNKNOWN_DATASET."""
    row: Any = connection.execute(
        "SELECT seq, id, owner, left_out, create_time FROM datasets WHERE id = ?1 AND (?2 = '' OR owner = ?2)"
        " ORDER BY owner = ?3 DESC, seq DESC LIMIT 1",
        (dataset_id, scope, owner),
    ).get
    if row is None:
        raise CraftError(
            "UNKNOWN_DATASET",
            f"dataset: there is none {dataset_id[:12]!r} (any more)",
            "send the pictures again",
            field="dataset",
        )
    pictures = connection.execute(f"SELECT {_PICTURE} FROM dataset_pictures WHERE dataset = ? ORDER BY place", row[:1])
    left_out = tuple(BadPicture(*one) for one in json.loads(row[3]))
    return Dataset(row[1], row[2], tuple(Picture(*one) for one in pictures), left_out, row[4])


def stored_bytes(connection: apsw.Connection, owner: str) -> int:
    """Of all the pictures of an owner, each once."""
    return int(
        connection.execute(
            f"SELECT ifnull(sum(size_bytes), 0) FROM (SELECT DISTINCT sha256, size_bytes FROM {_FILES}"
            " JOIN datasets ON dataset = seq WHERE owner = ?)",
            (owner,),
        ).get
    )


def hashes(connection: apsw.Connection) -> set[str]:
    """Of every picture and mask that a dataset has."""
    return {row[0] for row in connection.execute(f"SELECT DISTINCT sha256 FROM {_FILES}")}


def forgettable(connection: apsw.Connection, before: float, needed: Collection[str]) -> tuple[int, int]:
    """(pictures, bytes) that `forget` would leave without a dataset."""
    row: Any = connection.execute(
        f"SELECT count(*), coalesce(sum(size_bytes), 0) FROM (SELECT sha256, size_bytes FROM {_FILES}"
        " JOIN datasets ON dataset = seq GROUP BY sha256"
        " HAVING max(create_time >= ?1 OR id IN (SELECT value FROM json_each(?2))) = 0)",
        (before, json.dumps(sorted(needed))),
    ).get
    return int(row[0]), int(row[1])


def forget(connection: apsw.Connection, before: float, needed: Collection[str]) -> int:
    """Delete those older than `before` that nobody needs; how many."""
    connection.execute(
        "DELETE FROM datasets WHERE create_time < ? AND id NOT IN (SELECT value FROM json_each(?))",
        (before, json.dumps(sorted(needed))),
    )
    return connection.changes()


def _left_out(dataset: Dataset) -> str:
    return json.dumps([(one.file_name, one.why) for one in dataset.left_out])
