"""Finished jobs that are old enough, and of which no picture is left. Functions of a connection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import apsw

_AT_ONCE = 2000
_FINAL = "('SUCCEEDED', 'FAILED', 'CANCELLED')"


@dataclass(frozen=True)
class Old:
    """A job that may be forgotten."""

    id: str
    is_training: bool


@dataclass(frozen=True)
class Portion:
    """Some jobs, in the order of arrival. `last`: the seq of the last one that was looked at; 0: there were none."""

    old: tuple[Old, ...]
    last: int


def portion(connection: apsw.Connection, after: int, before: float) -> Portion:
    """Of those behind seq `after`, the ones that ended before then, have no picture and no checkpoint."""
    rows: list[Any] = connection.execute(
        f"SELECT seq, id, kind = 'train', state IN {_FINAL} AND finish_time < ?2"
        " AND NOT EXISTS (SELECT 1 FROM images WHERE job_id = jobs.id)"
        " AND NOT EXISTS (SELECT 1 FROM trainings WHERE job_id = jobs.id AND checkpoint_step > 0)"
        " FROM jobs WHERE seq > ?1 AND create_time < ?2 ORDER BY seq LIMIT ?3",
        (after, before, _AT_ONCE),
    ).fetchall()
    old = tuple(Old(str(row[1]), bool(row[2])) for row in rows if row[3])
    return Portion(old, rows[-1][0] if rows else 0)


def count(connection: apsw.Connection) -> int:
    return int(connection.execute("SELECT count(*) FROM jobs").get)


def forget(connection: apsw.Connection, jobs: Sequence[Old]) -> None:
    for one in jobs:
        for table in ("training_samples", "training_steps", "trainings"):
            if one.is_training:
                connection.execute(f"DELETE FROM {table} WHERE job_id = ?", (one.id,))
        connection.execute("DELETE FROM jobs WHERE id = ?", (one.id,))
