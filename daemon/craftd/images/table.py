"""The images' rows. Functions of a connection, to be run by the store."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import Any

import apsw

from craftd.images.image import Image
from craftd.store import ids

_NAMES = [field.name for field in fields(Image)]
_COLUMNS = ", ".join(f'"{name}"' for name in _NAMES)


def insert(connection: apsw.Connection, image: Image) -> bool:
    """False if the job has an image of that index already."""
    values = [getattr(image, name) for name in _NAMES]
    marks = ", ".join("?" for _ in range(len(values) + 1))
    connection.execute(
        f'INSERT INTO images ({_COLUMNS}, file) VALUES ({marks}) ON CONFLICT (job_id, "index") DO NOTHING',
        (*values, image.file_name),
    )
    return connection.changes() == 1


def find(connection: apsw.Connection, prefix: str, owner: str = "") -> Image:
    """`owner`: "" for anybody's. Raises UNKNOWN_IMAGE, AMBIGUOUS_ID."""
    image_id = ids.resolve(connection, "images", prefix, "UNKNOWN_IMAGE", owner)
    return _image(connection.execute(f"SELECT {_COLUMNS} FROM images WHERE id = ?", (image_id,)).get)


def find_public(connection: apsw.Connection, image_id: str) -> Image | None:
    """By the whole id alone, of a job that was made public."""
    row = connection.execute(
        f"SELECT {_COLUMNS} FROM images WHERE id = ? AND (SELECT is_public FROM jobs WHERE jobs.id = job_id)",
        (image_id,),
    ).get
    return None if row is None else _image(row)


def of_jobs(connection: apsw.Connection, job_ids: Iterable[str]) -> dict[str, list[Image]]:
    """Each job's images, by index."""
    found: dict[str, list[Image]] = {job_id: [] for job_id in job_ids}
    for job_id, images in found.items():
        rows = connection.execute(f'SELECT {_COLUMNS} FROM images WHERE job_id = ? ORDER BY "index"', (job_id,))
        images.extend(_image(row) for row in rows)
    return found


def newest(
    connection: apsw.Connection, count: int, before: int | None, job_id: str, owner: str = ""
) -> list[tuple[int, Image]]:
    """Up to `count` of (seq, image), newest first, from below `before` on; of one job, or of all; of one owner's."""
    # `+seq`: an owner's images are found by his jobs, however many others have
    whose, order = ("job_id IN (SELECT id FROM jobs WHERE owner = ?4)", "+seq") if owner else ("?4 = ''", "seq")
    rows = connection.execute(
        f"SELECT seq, {_COLUMNS} FROM images WHERE (?1 IS NULL OR seq < ?1) AND (?2 = '' OR job_id = ?2) AND {whose}"
        f" ORDER BY {order} DESC LIMIT ?3",
        (before, job_id, count, owner),
    )
    return [(int(row[0]), _image(row[1:])) for row in rows]


def count(connection: apsw.Connection, job_id: str) -> int:
    return int(connection.execute("SELECT count(*) FROM images WHERE job_id = ?", (job_id,)).get)


def delete(connection: apsw.Connection, image_id: str) -> None:
    connection.execute("DELETE FROM images WHERE id = ?", (image_id,))


def file_names(connection: apsw.Connection) -> set[str]:
    return {str(name) for (name,) in connection.execute("SELECT file FROM images")}


def _image(row: Any) -> Image:
    return Image(*row)
