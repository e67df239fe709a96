"""What an owner has in the daemon: counted, and deleted when the owner asks to be forgotten."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import apsw

from craftd.images.service import ImageService
from craftd.inputs.service import InputService
from craftd.loras.service import LoraService
from craftd.store.database import Database
from craftd.training.service import TrainingService

_DAY_S = 86400.0
_OF_OWNER = "(SELECT id FROM jobs WHERE owner = ?)"


@dataclass(frozen=True)
class Usage:
    """What a key's owner has asked for, against what the key may have at once."""

    images_in_flight: int
    most_images_in_flight: int
    images_last_day: int
    images: int


@dataclass(frozen=True)
class Forgotten:
    """How much of an owner's was deleted."""

    jobs: int
    images: int
    datasets: int


class Holdings:
    def __init__(
        self,
        database: Database,
        images: ImageService,
        trainings: TrainingService,
        inputs: InputService,
        loras: LoraService,
    ) -> None:
        self._database = database
        self._images = images
        self._trainings = trainings
        self._inputs = inputs
        self._loras = loras

    async def delete(self, owner: str) -> Forgotten:
        """Files go before the rows that name them: what a crash cuts short is found and deleted the next time."""
        images = await self._images.delete_all(owner)
        for job_id in await self._database.run(lambda connection: _with_samples(connection, owner)):
            await asyncio.to_thread(self._trainings.files.remove_all_samples, job_id)
        jobs, datasets = await self._database.run(lambda connection: _delete_rows(connection, owner))
        await self._inputs.forget(owner)
        await self._loras.forget(owner)
        await self._trainings.sweep()  # files of datasets and checkpoints that no row names any more
        return Forgotten(jobs, images, datasets)


def count_images(connection: apsw.Connection, owner: str) -> tuple[int, int]:
    """An owner's images that are kept: of the last day, and all."""
    row = connection.execute(
        f"SELECT coalesce(sum(create_time >= ?), 0), count(*) FROM images WHERE job_id IN {_OF_OWNER}",
        (time.time() - _DAY_S, owner),
    ).get
    return int(row[0]), int(row[1])


def unfinished(connection: apsw.Connection, owner: str) -> list[str]:
    """The ids of an owner's jobs that wait or run."""
    rows = connection.execute("SELECT id FROM jobs WHERE owner = ? AND state IN ('QUEUED', 'RUNNING')", (owner,))
    return [str(row[0]) for row in rows]


def _with_samples(connection: apsw.Connection, owner: str) -> list[str]:
    rows = connection.execute(f"SELECT DISTINCT job_id FROM training_samples WHERE job_id IN {_OF_OWNER}", (owner,))
    return [str(row[0]) for row in rows]


def _delete_rows(connection: apsw.Connection, owner: str) -> tuple[int, int]:
    """(jobs, datasets) that were deleted."""
    for table in ("training_samples", "training_steps", "trainings"):
        connection.execute(f"DELETE FROM {table} WHERE job_id IN {_OF_OWNER}", (owner,))
    connection.execute(
        "DELETE FROM jobs WHERE owner = ? AND state NOT IN ('QUEUED', 'RUNNING')"
        " AND NOT EXISTS (SELECT 1 FROM images WHERE job_id = jobs.id)",
        (owner,),
    )
    jobs = connection.changes()
    connection.execute("DELETE FROM datasets WHERE owner = ?", (owner,))
    return jobs, connection.changes()
