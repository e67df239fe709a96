"""The jobs' rows. Functions of a connection, to be run by the store."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, replace
from typing import Any

import apsw
from craft_protos.reasons import CraftError

from craftd.images import table as images
from craftd.images.image import Image
from craftd.jobs.job import Error, GenerateSpec, Job, JobView, LoraUse, Priority, Request, State
from craftd.jobs.training import table as trainings
from craftd.jobs.training.spec import TrainSpec
from craftd.store import ids

_GENERATE, _TRAIN = "generate", "train"  # kinds
_COLUMNS = (
    "id, owner, request_id, body_sha256, spec, create_time, state, priority, lease, attempts, is_suspect,"
    " expire_time, start_time, finish_time, load_s, denoise_s, error_reason, error_message, error_hint, is_public,"
    " lora, kind"
)


def find_request(connection: apsw.Connection, owner: str, request: Request) -> JobView | None:
    """The job already made of this request. Raises REQUEST_ID_CLASH if it was another's."""
    row = connection.execute(
        f"SELECT {_COLUMNS} FROM jobs WHERE owner = ? AND request_id = ?", (owner, request.request_id)
    ).get
    if row is None:
        return None
    job = _job(row)
    if job.body_sha256 != request.body_sha256:
        raise CraftError(
            "REQUEST_ID_CLASH",
            f"request_id: it was used for another body (job {job.id})",
            "a new request needs a new one",
            field="request_id",
        )
    return _views(connection, [job])[0]


def insert_once(connection: apsw.Connection, job: Job, request: Request) -> JobView:
    """Store the job, or find the one that the request has made already. Raises REQUEST_ID_CLASH, NAME_TAKEN."""
    made = find_request(connection, job.owner, request)
    if made is not None:
        return made
    if isinstance(job.spec, TrainSpec):
        trainings.check_name(connection, job.spec.name)
    insert(connection, job)
    if isinstance(job.spec, TrainSpec):
        trainings.begin(connection, job.id, job.spec.resume)
    return JobView(job)


def insert(connection: apsw.Connection, job: Job) -> None:
    error = job.error or Error("", "", "")
    connection.execute(
        f"INSERT INTO jobs ({_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
        (
            job.id,
            job.owner,
            job.request_id,
            job.body_sha256,
            json.dumps(asdict(job.spec), ensure_ascii=False),
            job.create_time,
            job.state.value,
            int(job.priority),
            job.lease,
            job.attempts,
            job.is_suspect,
            job.expire_time,
            job.start_time,
            job.finish_time,
            job.load_s,
            job.denoise_s,
            error.reason or None,
            error.message or None,
            error.hint or None,
            job.public,
            job.lora,
            _TRAIN if job.is_training else _GENERATE,
        ),
    )


def update(connection: apsw.Connection, job: Job) -> None:
    """Write what changes in a job's life; a job that has finished stays as it is."""
    error = job.error or Error("", "", "")
    connection.execute(
        "UPDATE jobs SET state=?, attempts=?, is_suspect=?, start_time=?, finish_time=?, load_s=?, denoise_s=?,"
        " error_reason=?, error_message=?, error_hint=?, lora=? WHERE id=? AND state IN ('QUEUED', 'RUNNING')",
        (
            job.state.value,
            job.attempts,
            job.is_suspect,
            job.start_time,
            job.finish_time,
            job.load_s,
            job.denoise_s,
            error.reason or None,
            error.message or None,
            error.hint or None,
            job.lora,
            job.id,
        ),
    )


def commit_image(connection: apsw.Connection, image: Image, running: Job, succeeded: Job) -> Job:
    """An image's row and what it makes of its job, in one transaction: the last one makes it `succeeded`.

    Raises JOB_FINISHED where the image comes too late: the job has ended, or has an image of that index.
    """
    is_unfinished = connection.execute("SELECT state IN ('QUEUED', 'RUNNING') FROM jobs WHERE id = ?", (image.job_id,))
    if not is_unfinished.get or not images.insert(connection, image):
        raise CraftError("JOB_FINISHED", f"job {image.job_id}: image {image.index} came too late")
    job = succeeded if images.count(connection, image.job_id) == len(running.spec.wanted) else running
    update(connection, job)
    return job


def view(connection: apsw.Connection, prefix: str, owner: str = "") -> JobView:
    """`owner`: "" for anybody's. Raises UNKNOWN_JOB, AMBIGUOUS_ID."""
    job_id = ids.resolve(connection, "jobs", prefix, "UNKNOWN_JOB", owner)
    return _views(connection, [_job(connection.execute(f"SELECT {_COLUMNS} FROM jobs WHERE id = ?", (job_id,)).get)])[0]


def newest(
    connection: apsw.Connection, count: int, before: int | None, states: tuple[State, ...], owner: str = ""
) -> list[tuple[int, JobView]]:
    """Up to `count` of (seq, job), newest first, from below `before` on; of one owner, or of all."""
    whose = "owner = ?4" if owner else "?4 = ''"
    wanted = json.dumps([state.value for state in states or tuple(State)])
    rows: list[Any] = connection.execute(
        f"SELECT seq, {_COLUMNS} FROM jobs WHERE (?1 IS NULL OR seq < ?1)"
        f" AND state IN (SELECT value FROM json_each(?2)) AND {whose} ORDER BY seq DESC LIMIT ?3",
        (before, wanted, count, owner),
    ).fetchall()
    views = _views(connection, [_job(row[1:]) for row in rows])
    return [(int(row[0]), view) for row, view in zip(rows, views, strict=True)]


def resume(connection: apsw.Connection) -> list[JobView]:
    """At the daemon's start: what was running waits again. Unfinished jobs, oldest first."""
    connection.execute("UPDATE jobs SET state = 'QUEUED' WHERE state = 'RUNNING'")
    rows = connection.execute(f"SELECT {_COLUMNS} FROM jobs WHERE state = 'QUEUED' ORDER BY seq").fetchall()
    return _views(connection, [_job(row) for row in rows])


def _views(connection: apsw.Connection, jobs: Iterable[Job]) -> list[JobView]:
    jobs = list(jobs)
    found = images.of_jobs(connection, [job.id for job in jobs])
    return [JobView(job, tuple(found[job.id])) for job in jobs]


def _job(row: Any) -> Job:
    job = Job(
        id=row[0],
        owner=row[1],
        request_id=row[2],
        body_sha256=row[3],
        spec=_train_spec(json.loads(row[4])) if row[21] == _TRAIN else _spec(json.loads(row[4])),
        create_time=row[5],
        state=State(row[6]),
        priority=Priority(row[7]),
        lease=bool(row[8]),
        attempts=row[9],
        is_suspect=bool(row[10]),
        expire_time=row[11],
        start_time=row[12],
        finish_time=row[13],
        load_s=row[14],
        denoise_s=row[15],
        public=bool(row[19]),
        lora=row[20],
    )
    return job if row[16] is None else replace(job, error=Error(row[16], row[17] or "", row[18] or ""))


def _train_spec(stored: dict[str, Any]) -> TrainSpec:
    return TrainSpec(**{**stored, "sample_prompts": tuple(stored["sample_prompts"])})


def _spec(stored: dict[str, Any]) -> GenerateSpec:
    loras = tuple(LoraUse(**use) for use in stored.get("loras", ()))
    return GenerateSpec(**{**stored, "indices": tuple(stored["indices"]), "loras": loras})
