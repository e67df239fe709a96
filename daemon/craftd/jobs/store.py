"""The jobs' rows. Functions of a connection, to be run by the store."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import apsw
from craft_protos.codec import from_json, to_json
from craft_protos.generate import GenerateSpec
from craft_protos.job_request import JobRequest
from craft_protos.reasons import CraftError
from craft_protos.train import TrainSpec

from craftd.images import table as images
from craftd.images.image import Image
from craftd.jobs.job import Error, Job, JobView, Priority, State, body_sha256
from craftd.store import ids
from craftd.training import store as trainings
from craftd.webhooks import store as webhooks

_SPECS: dict[str, Callable[..., GenerateSpec | TrainSpec]] = {"generate": GenerateSpec, "train": TrainSpec}
_LAST = 2**63 - 1  # beyond every seq
_COLUMNS = (
    "id, owner, request_id, body_sha256, spec, create_time, state, priority, lease, attempts, is_suspect,"
    " expire_time, start_time, finish_time, load_s, denoise_s, error_reason, error_message, error_hint, is_public,"
    " lora, kind"
)

_BY_STATE = "SELECT state, count(*) FROM jobs GROUP BY state"
_LAST_IMAGE = "SELECT seq FROM sqlite_sequence WHERE name = 'images'"


@dataclass(frozen=True)
class JobCounts:
    """How many jobs there are of each state, and how many images were ever made."""

    jobs: Mapping[State, int]
    images_made: int  # those deleted since counted too


def find_request(connection: apsw.Connection, owner: str, request: JobRequest) -> JobView | None:
    """The job already made of this request. Raises REQUEST_ID_CLASH if it was another's."""
    row = connection.execute(
        f"SELECT {_COLUMNS} FROM jobs WHERE owner = ? AND request_id = ?", (owner, request.request_id)
    ).get
    if row is None:
        return None
    job = _job(row)
    if job.body_sha256 != body_sha256(request):
        raise CraftError(
            "REQUEST_ID_CLASH",
            f"request_id: it was used for another body (job {job.id})",
            "a new request needs a new one",
            field="request_id",
        )
    return _views(connection, [job])[0]


def insert_once(connection: apsw.Connection, job: Job, request: JobRequest) -> JobView:
    """Store the job, or find the one that the request has made already. Raises REQUEST_ID_CLASH, NAME_TAKEN."""
    made = find_request(connection, job.owner, request)
    if made is not None:
        return made
    if isinstance(job.spec, TrainSpec):
        trainings.check_name(connection, job.spec.name, job.owner)
    insert(connection, job)
    if isinstance(job.spec, TrainSpec):
        trainings.begin(connection, job.id, job.spec.resume)
    if request.webhook:
        webhooks.add(connection, job.id, request.webhook)
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
            json.dumps(to_json(job.spec), ensure_ascii=False),
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
            "train" if job.is_training else "generate",
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


def update_all(connection: apsw.Connection, jobs: Iterable[Job]) -> None:
    for job in jobs:
        update(connection, job)


def finish(connection: apsw.Connection, ended: Job) -> Job:
    """Write a job's end; the job as it is stored then, which keeps the end that came first."""
    update(connection, ended)
    row = connection.execute(f"SELECT {_COLUMNS} FROM jobs WHERE id = ?", (ended.id,)).get
    return ended if row is None else _job(row)


def commit_image(connection: apsw.Connection, image: Image, running: Job, succeeded: Job) -> Job:
    """An image's row and what it makes of its job, in one transaction: the last one makes it `succeeded`.

    Raises JOB_FINISHED where the image comes too late: the job has ended, or has an image of that index.
    Idempotent: a commit whose success was not told may be tried again.
    """
    if images.has(connection, image.id):
        return _job(connection.execute(f"SELECT {_COLUMNS} FROM jobs WHERE id = ?", (image.job_id,)).get)
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
    rows = _newest(connection, count, before, None, owner) if not (states or owner) else []
    for state in (states or tuple(State)) if states or owner else ():  # each is in the order of its index
        rows += _newest(connection, count, before, state, owner)
    rows = sorted(rows, key=lambda row: -int(row[0]))[:count]
    views = _views(connection, [_job(row[1:]) for row in rows])
    return [(int(row[0]), view) for row, view in zip(rows, views, strict=True)]


def _newest(connection: apsw.Connection, count: int, before: int | None, state: State | None, owner: str) -> list[Any]:
    """Rows of (seq, job), newest first."""
    which = " AND owner = :owner" if owner else ""
    which += " AND state = :state" if state else ""
    return connection.execute(
        f"SELECT seq, {_COLUMNS} FROM jobs WHERE seq < :before{which} ORDER BY seq DESC LIMIT :count",
        {"before": _LAST if before is None else before, "count": count, "state": state and state.value, "owner": owner},
    ).fetchall()


def resume(connection: apsw.Connection) -> list[JobView]:
    """At the daemon's start: what was running waits again. Unfinished jobs, oldest first."""
    connection.execute("UPDATE jobs SET state = 'QUEUED' WHERE state = 'RUNNING'")
    connection.execute(
        "DELETE FROM removed_images WHERE job_id NOT IN (SELECT id FROM jobs WHERE state IN ('QUEUED', 'RUNNING'))"
    )
    rows = connection.execute(f"SELECT {_COLUMNS} FROM jobs WHERE state = 'QUEUED' ORDER BY seq").fetchall()
    return _views(connection, [_job(row) for row in rows])


def unfinished(connection: apsw.Connection) -> set[str]:
    """Ids of the jobs that have not ended."""
    return {str(id_) for (id_,) in connection.execute("SELECT id FROM jobs WHERE state IN ('QUEUED', 'RUNNING')")}


def count(connection: apsw.Connection) -> JobCounts:
    """As stored."""
    counted = {State(state): int(count) for state, count in connection.execute(_BY_STATE)}
    made = int(connection.execute(_LAST_IMAGE).get or 0)
    return JobCounts({state: counted.get(state, 0) for state in State}, made)


def views(connection: apsw.Connection, job_ids: Iterable[str]) -> list[JobView]:
    """Those of the jobs that there are, oldest first."""
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM jobs WHERE id IN (SELECT value FROM json_each(?)) ORDER BY seq",
        (json.dumps(list(job_ids)),),
    ).fetchall()
    return _views(connection, [_job(row) for row in rows])


def _views(connection: apsw.Connection, jobs: Iterable[Job]) -> list[JobView]:
    jobs = list(jobs)
    found = images.of_jobs(connection, [job.id for job in jobs])
    removed = images.removed_of(connection, [job.id for job in jobs if not job.state.is_final])
    return [JobView(job, tuple(found[job.id]), removed=frozenset(removed.get(job.id, ()))) for job in jobs]


def _job(row: Any) -> Job:
    job = Job(
        id=row[0],
        owner=row[1],
        request_id=row[2],
        body_sha256=row[3],
        spec=from_json(_SPECS[row[21]], json.loads(row[4])),
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
