"""Webhooks that are still to be sent. Functions of a connection; a forgotten job takes its own along."""

from __future__ import annotations

from dataclasses import dataclass

import apsw


@dataclass(frozen=True)
class Pending:
    """`tries` were made in vain."""

    job_id: str
    url: str
    tries: int


def add(connection: apsw.Connection, job_id: str, url: str) -> None:
    connection.execute("INSERT INTO webhooks (job_id, url) VALUES (?, ?)", (job_id, url))


def due(connection: apsw.Connection, now: float, most: int) -> list[Pending]:
    """Of jobs that have ended, and whose time has come; the oldest first."""
    rows = connection.execute(
        "SELECT webhooks.job_id, url, tries FROM webhooks JOIN jobs ON jobs.id = webhooks.job_id"
        " WHERE state NOT IN ('QUEUED', 'RUNNING') AND next_time <= ? ORDER BY next_time LIMIT ?",
        (now, most),
    )
    return [Pending(*row) for row in rows]


def has_some(connection: apsw.Connection) -> bool:
    return connection.execute("SELECT 1 FROM webhooks LIMIT 1").get is not None


def put_off(connection: apsw.Connection, one: Pending, until: float) -> None:
    """After a try in vain."""
    connection.execute(
        "UPDATE webhooks SET tries = ?, next_time = ? WHERE job_id = ?", (one.tries + 1, until, one.job_id)
    )


def drop(connection: apsw.Connection, job_id: str) -> None:
    """It was sent, or is given up."""
    connection.execute("DELETE FROM webhooks WHERE job_id = ?", (job_id,))
