"""The trainings' rows. Functions of a connection, to be run by the store."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from typing import Any

import apsw
from craft_protos.reasons import CraftError
from craft_protos.train import TrainSpec

from craftd.training.progress import Checkpoint, Record, Sample, Step

_RECORD = "checkpoint_step, checkpoint_sha256, checkpoint_bytes, made_sha256, lora"
_MADE = """
SELECT jobs.spec ->> 'rank' AS made_rank, loras.size_bytes
FROM trainings JOIN jobs ON jobs.id = trainings.job_id JOIN loras ON loras.id = trainings.lora
WHERE jobs.spec ->> 'model' = ? AND jobs.spec ->> 'format' = ?
  AND jobs.spec ->> 'dora' = ? AND jobs.spec ->> 'train_text_encoder' = ?
  AND coalesce(jobs.spec ->> 'network', 'lora') = ? AND coalesce(jobs.spec ->> 'conv_rank', 0) = ?
ORDER BY abs(made_rank - ?), jobs.seq DESC LIMIT 1
"""
_UNFINISHED = "('QUEUED', 'RUNNING')"


def begin(connection: apsw.Connection, job_id: str, resumed: str = "") -> None:
    """A training's row; `resumed`: the job whose checkpoint and losses up to there it takes over."""
    connection.execute("INSERT OR IGNORE INTO trainings (job_id) VALUES (?)", (job_id,))
    if not resumed:
        return
    found = record(connection, resumed).checkpoint
    _set_checkpoint(connection, job_id, found)
    connection.execute(
        "INSERT INTO training_steps SELECT ?, step, loss, learning_rate, validation_loss FROM training_steps"
        " WHERE job_id=? AND step<=?",
        (job_id, resumed, found.step),
    )


def record(connection: apsw.Connection, job_id: str) -> Record:
    row: Any = connection.execute(f"SELECT {_RECORD} FROM trainings WHERE job_id = ?", (job_id,)).get
    return Record() if row is None else Record(Checkpoint(*row[:3]), *row[3:])


def reach(connection: apsw.Connection, job_id: str, checkpoint: Checkpoint, passed: Iterable[Step]) -> None:
    """A checkpoint and the losses up to it, in one transaction."""
    _set_checkpoint(connection, job_id, checkpoint)
    add_steps(connection, job_id, passed)


def add_steps(connection: apsw.Connection, job_id: str, passed: Iterable[Step]) -> None:
    connection.executemany(
        "INSERT OR REPLACE INTO training_steps VALUES (?,?,?,?,?)",
        [(job_id, one.step, one.loss, one.learning_rate, one.validation_loss) for one in passed],
    )


def rewind(connection: apsw.Connection, job_id: str) -> list[str]:
    """Forget what came after the checkpoint; the names of the samples' files that went with it."""
    known = record(connection, job_id)
    if known.made_sha256:
        return []
    step = known.checkpoint.step
    connection.execute("DELETE FROM training_steps WHERE job_id = ? AND step > ?", (job_id, step))
    gone = connection.execute(
        "DELETE FROM training_samples WHERE job_id = ? AND step > ? RETURNING file", (job_id, step)
    ).fetchall()
    return [str(row[0]) for row in gone]


def add_sample(connection: apsw.Connection, job_id: str, sample: Sample) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO training_samples VALUES (?,?,?,?,?,?,?)",
        (job_id, sample.step, sample.place, sample.prompt, sample.seed, sample.media_type, sample.file),
    )


def set_made(connection: apsw.Connection, job_id: str, sha256: str, passed: Iterable[Step]) -> None:
    """The finished LoRA's file, and the losses up to the end."""
    connection.execute("UPDATE trainings SET made_sha256 = ? WHERE job_id = ?", (sha256, job_id))
    add_steps(connection, job_id, passed)


def made_bytes(connection: apsw.Connection, spec: TrainSpec) -> int:
    """How large the LoRA's file will be, by the one of the nearest rank that was made here; 0: none was."""
    kind = (spec.format, spec.dora, spec.train_text_encoder, spec.network, spec.conv_rank)
    found: Any = connection.execute(_MADE, (spec.model, *kind, spec.rank)).get
    return 0 if found is None else round(found[1] * spec.rank / found[0])


def set_lora(connection: apsw.Connection, job_id: str, lora: str) -> None:
    connection.execute("UPDATE trainings SET lora = ? WHERE job_id = ?", (lora, job_id))


def steps(connection: apsw.Connection, job_id: str) -> list[Step]:
    rows: Any = connection.execute(
        "SELECT step, json_extract(spec, '$.steps'), loss, learning_rate, 0.0, validation_loss FROM training_steps"
        " JOIN jobs ON id = job_id WHERE job_id = ? ORDER BY step",
        (job_id,),
    )
    return [Step(*row) for row in rows]


def samples(connection: apsw.Connection, job_id: str) -> list[Sample]:
    rows: Any = connection.execute(
        "SELECT step, place, prompt, seed, media_type, file FROM training_samples WHERE job_id = ?"
        " ORDER BY step, place",
        (job_id,),
    )
    return [Sample(*row) for row in rows]


def last_with_name(connection: apsw.Connection, name: str, owner: str) -> str:
    """The id of the newest train job of that name, an owner's or ("") anybody's; "" where there is none."""
    found = connection.execute(
        "SELECT id FROM jobs WHERE kind = 'train' AND json_extract(spec, '$.name') = ?1 AND (?2 = '' OR owner = ?2)"
        " ORDER BY seq DESC LIMIT 1",
        (name, owner),
    ).get
    return str(found or "")


def needed_datasets(connection: apsw.Connection, since: float) -> set[str]:
    """Of jobs that are not finished, or did not succeed and ended after `since`: those may be gone on with."""
    rows = connection.execute(
        "SELECT DISTINCT json_extract(spec, '$.dataset') FROM jobs WHERE kind = 'train' AND"
        f" (state IN {_UNFINISHED} OR (state IN ('FAILED', 'CANCELLED') AND finish_time >= ?))",
        (since,),
    )
    return {str(row[0]) for row in rows}


def drop_checkpoints(connection: apsw.Connection, before: float) -> None:
    """Forget those of jobs that succeeded, and of others that ended before then."""
    connection.execute(
        "UPDATE trainings SET checkpoint_step = 0, checkpoint_sha256 = '', checkpoint_bytes = 0, made_sha256 = ''"
        " WHERE job_id IN (SELECT id FROM jobs WHERE kind = 'train' AND (state = 'SUCCEEDED'"
        " OR (state IN ('FAILED', 'CANCELLED') AND finish_time < ?)))",
        (before,),
    )


def droppable(connection: apsw.Connection, before: float) -> tuple[int, int]:
    """(checkpoints, bytes) that `drop_checkpoints` would forget."""
    row: Any = connection.execute(
        "SELECT count(*), coalesce(sum(checkpoint_bytes), 0) FROM trainings WHERE checkpoint_step > 0 AND"
        " job_id IN (SELECT id FROM jobs WHERE kind = 'train' AND (state = 'SUCCEEDED'"
        " OR (state IN ('FAILED', 'CANCELLED') AND finish_time < ?)))",
        (before,),
    ).get
    return int(row[0]), int(row[1])


def ended(connection: apsw.Connection, job_ids: Collection[str], before: float) -> list[str]:
    """Those of them that ended before then."""
    rows = connection.execute(
        f"SELECT id FROM jobs WHERE id IN (SELECT value FROM json_each(?)) AND state NOT IN {_UNFINISHED}"
        " AND finish_time < ?",
        (json.dumps(sorted(job_ids)), before),
    )
    return [str(row[0]) for row in rows]


def forget_samples(connection: apsw.Connection, job_ids: Iterable[str]) -> None:
    connection.executemany("DELETE FROM training_samples WHERE job_id = ?", [(one,) for one in job_ids])


def needed_files(connection: apsw.Connection) -> set[str]:
    """The hashes of all checkpoints and finished LoRAs that a row names."""
    rows = connection.execute("SELECT checkpoint_sha256 FROM trainings UNION SELECT made_sha256 FROM trainings")
    return {str(row[0]) for row in rows if row[0]}


def first_owner(connection: apsw.Connection, job_id: str) -> str:
    """Whose a train job's LoRA is: the owner's of the training that it, or the one before it, goes on with."""
    found = connection.execute(
        "WITH RECURSIVE earlier (id, owner, resume, place) AS ("
        " SELECT id, owner, json_extract(spec, '$.resume'), 0 FROM jobs WHERE id = ?"
        " UNION ALL SELECT jobs.id, jobs.owner, json_extract(jobs.spec, '$.resume'), place + 1"
        " FROM jobs JOIN earlier ON jobs.id = earlier.resume)"
        " SELECT owner FROM earlier ORDER BY place DESC LIMIT 1",
        (job_id,),
    ).get
    return str(found)


def check_name(connection: apsw.Connection, name: str, owner: str) -> None:
    """Raises NAME_TAKEN where another job trains a LoRA of that name for the owner."""
    job_id = connection.execute(
        f"SELECT id FROM jobs WHERE kind = 'train' AND state IN {_UNFINISHED} AND json_extract(spec, '$.name') = ?"
        " AND owner = ?",
        (name, owner),
    ).get
    if job_id is not None:
        raise CraftError(
            "NAME_TAKEN",
            f"name: job {job_id} trains a LoRA that will be called {name!r}",
            f"give another, or cancel that one: craft jobs cancel {job_id}",
            field="name",
        )


def _set_checkpoint(connection: apsw.Connection, job_id: str, checkpoint: Checkpoint) -> None:
    connection.execute(
        "UPDATE trainings SET checkpoint_step = ?, checkpoint_sha256 = ?, checkpoint_bytes = ? WHERE job_id = ?",
        (checkpoint.step, checkpoint.sha256, checkpoint.size_bytes, job_id),
    )
