"""The images' rows. Functions of a connection, to be run by the store."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import fields, replace
from typing import Any

import apsw

from craftd.images.image import Image
from craftd.images.search import ALL, Search
from craftd.store import ids

_MARKS = ("is_favourite", "is_public")  # that its owner gives it afterwards
_NAMES = [field.name for field in fields(Image) if field.name not in _MARKS]
_STORED = ", ".join(f'"{name}"' for name in _NAMES)
_IS_PUBLIC = "coalesce(images.is_public, (SELECT is_public FROM jobs WHERE jobs.id = job_id))"
_COLUMNS = f"{_STORED}, is_favourite, {_IS_PUBLIC}"


def insert(connection: apsw.Connection, image: Image) -> bool:
    """False if the job has an image of that index already."""
    values = [getattr(image, name) for name in _NAMES]
    marks = ", ".join("?" for _ in range(len(values) + 1))
    connection.execute(
        f'INSERT INTO images ({_STORED}, file) VALUES ({marks}) ON CONFLICT (job_id, "index") DO NOTHING',
        (*values, image.file_name),
    )
    return connection.changes() == 1


def has(connection: apsw.Connection, image_id: str) -> bool:
    return connection.execute("SELECT 1 FROM images WHERE id = ?", (image_id,)).get is not None


def find(connection: apsw.Connection, prefix: str, owner: str = "") -> Image:
    """`owner`: "" for anybody's. Raises UNKNOWN_IMAGE, AMBIGUOUS_ID."""
    image_id = ids.resolve(connection, "images", prefix, "UNKNOWN_IMAGE", owner)
    return _image(connection.execute(f"SELECT {_COLUMNS} FROM images WHERE id = ?", (image_id,)).get)


def find_public(connection: apsw.Connection, image_id: str) -> Image | None:
    """By the whole id alone, of a job that was made public."""
    row = connection.execute(f"SELECT {_COLUMNS} FROM images WHERE id = ? AND {_IS_PUBLIC}", (image_id,)).get
    return None if row is None else _image(row)


def of_jobs(connection: apsw.Connection, job_ids: Iterable[str]) -> dict[str, list[Image]]:
    """Each job's images, by index."""
    found: dict[str, list[Image]] = {job_id: [] for job_id in job_ids}
    rows = connection.execute(
        f'SELECT {_COLUMNS} FROM images WHERE job_id IN (SELECT value FROM json_each(?)) ORDER BY job_id, "index"',
        (json.dumps(list(found)),),
    )
    for image in map(_image, rows):
        found[image.job_id].append(image)
    return found


def newest(
    connection: apsw.Connection, count: int, before: int | None, job_id: str, owner: str = "", *, search: Search = ALL
) -> list[tuple[int, Image]]:
    """Up to `count` of (seq, image), newest first, from below `before` on; of one job, or of all; of one owner's."""
    # `+seq`: an owner's images are found by his jobs, however many others have. Whole rows are read last.
    whose, order = ("job_id IN (SELECT id FROM jobs WHERE owner = :owner)", "+seq") if owner else ("1", "seq")
    what, given = search.where()
    rows = connection.execute(
        f"SELECT seq, {_COLUMNS} FROM images WHERE seq IN (SELECT seq FROM images"
        f" WHERE (:before IS NULL OR seq < :before) AND (:job = '' OR job_id = :job) AND {whose} AND {what}"
        f" ORDER BY {order} DESC LIMIT :count) ORDER BY seq DESC",
        {"before": before, "job": job_id, "count": count, "owner": owner, **given},
    )
    return [(int(row[0]), _image(row[1:])) for row in rows]


def mark(connection: apsw.Connection, image_id: str, *, favourite: bool | None, public: bool | None) -> Image:
    """None: stays."""
    connection.execute(
        "UPDATE images SET is_favourite = coalesce(?, is_favourite), is_public = coalesce(?, is_public) WHERE id = ?",
        (favourite, public, image_id),
    )
    return find(connection, image_id)


def count(connection: apsw.Connection, job_id: str) -> int:
    """Those that were deleted while it ran among them."""
    return int(
        connection.execute(
            "SELECT (SELECT count(*) FROM images WHERE job_id = ?1)"
            " + (SELECT count(*) FROM removed_images WHERE job_id = ?1)",
            (job_id,),
        ).get
    )


def removed_of(connection: apsw.Connection, job_ids: Iterable[str]) -> dict[str, set[int]]:
    """Of unfinished jobs, the indices of images that were drawn and deleted."""
    found: dict[str, set[int]] = {job_id: set() for job_id in job_ids}
    rows = connection.execute(
        'SELECT job_id, "index" FROM removed_images WHERE job_id IN (SELECT value FROM json_each(?))',
        (json.dumps(list(found)),),
    )
    for job_id, index in rows:
        found[str(job_id)].add(int(index))
    return found


def delete(connection: apsw.Connection, image_id: str) -> None:
    """One of an unfinished job was drawn all the same, and is not drawn again."""
    connection.execute(
        'INSERT OR IGNORE INTO removed_images SELECT job_id, "index" FROM images JOIN jobs ON jobs.id = job_id'
        " WHERE images.id = ? AND jobs.state IN ('QUEUED', 'RUNNING')",
        (image_id,),
    )
    connection.execute("DELETE FROM images WHERE id = ?", (image_id,))


def unknown(connection: apsw.Connection, names: Iterable[str]) -> set[str]:
    """Those of the files' names that no row has. A file is named by its image's id."""
    ids_ = {name: name.partition(".")[0] for name in names}
    rows = connection.execute(
        "SELECT file FROM images WHERE id IN (SELECT value FROM json_each(?))", (json.dumps(list(ids_.values())),)
    )
    return ids_.keys() - {str(file) for (file,) in rows}


def files_of(connection: apsw.Connection, owner: str, most: int) -> list[tuple[str, str]]:
    """(id, file) of up to so many of an owner's images."""
    rows: Any = connection.execute(
        "SELECT id, file FROM images WHERE job_id IN (SELECT id FROM jobs WHERE owner = ?) LIMIT ?", (owner, most)
    )
    return [(str(row[0]), str(row[1])) for row in rows]


def _image(row: Any) -> Image:
    *_, is_favourite, is_public = row
    return replace(Image(*row[:-2]), is_favourite=bool(is_favourite), is_public=bool(is_public))
