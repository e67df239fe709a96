"""The one checker: what is stored, what callers were told and what the daemon says of itself are the same.

It runs after every storm, on the stopped daemon's folders (`stopped`) and on the running one (`running`):

    python -m tests.storms.checker DATA_FOLDER     # the stored half, of any craft with the fake worker
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import apsw
from craft_protos.jobs_pb2 import JOB_STATE_QUEUED, JOB_STATE_RUNNING
from craft_protos.paths import Paths
from PIL import Image

from tests.storms.callers import Caller
from tests.storms.journal import SUCCEEDED, End, Journal, Picture, Violation
from tests.storms.keeper import Keeper

_PICTURES = {".png", ".jpg", ".jpeg", ".webp"}
_LOSSY = 12  # so far a colour may be off in a file that is


@dataclass(frozen=True)
class Job:
    """A row."""

    id: str
    request_id: str
    state: str
    reason: str
    message: str
    kind: str
    spec: dict[str, Any]

    @property
    def wanted(self) -> set[int]:
        return set(self.spec["indices"] or range(self.spec["count"])) if self.kind == "generate" else set()


@dataclass(frozen=True)
class Row:
    """An image's."""

    id: str
    picture: Picture
    file: str
    size_bytes: int


@dataclass(frozen=True)
class Training:
    """A train job's rows: its losses by step, the LoRA that it became, and where that lies."""

    job_id: str
    losses: list[tuple[int, float]]
    lora: str
    sha256: str
    path: Path


class Store:
    """craft.db and the folders that its rows speak of, read by nobody's code but ours."""

    def __init__(self, paths: Paths) -> None:
        self.paths = paths
        connection = apsw.Connection(str(paths.database))
        try:
            self.integrity = [str(row[0]) for row in connection.execute("PRAGMA integrity_check")]
            self.foreign_keys = connection.execute("PRAGMA foreign_key_check").fetchall()
            self.jobs: dict[str, Job] = {}
            self.images: list[Row] = []
            self.trainings: list[Training] = []
            tables = {str(row[0]) for row in connection.execute("SELECT name FROM sqlite_schema")}
            if not {"jobs", "images"} <= tables:  # a first start that was cut short
                return
            jobs = connection.execute(
                "SELECT id, request_id, state, coalesce(error_reason, ''), coalesce(error_message, ''), kind, spec"
                " FROM jobs"
            )
            self.jobs = {str(row[0]): Job(*row[:6], json.loads(row[6])) for row in jobs}  # type: ignore[arg-type]
            images = connection.execute('SELECT id, job_id, "index", seed, sha256, file, size_bytes FROM images')
            self.trainings = _trainings(connection) if "trainings" in tables else []
            self.images = [Row(row[0], Picture(*row[1:5]), row[5], row[6]) for row in images]  # type: ignore[arg-type]
        finally:
            connection.close()

    @cached_property
    def unfinished(self) -> set[str]:
        return {job.id for job in self.jobs.values() if job.state in ("QUEUED", "RUNNING")}


def stopped(paths: Paths, journal: Journal, *, is_swept: bool = False, is_ended: bool = True) -> list[Violation]:
    """What is wrong in the folders of a daemon that has ended.

    `is_swept`: it had started after the last fault. `is_ended`: every job must have ended by now.
    """
    store = Store(paths)
    found = [*_damaged(store), *_jobs(store, journal), *_ends(store, journal, is_ended)]
    found += [*_images(store, journal.maybe_deleted), *_told(store, journal), *_trained(store)]
    return [*found, *(_strays(store) if is_swept else ())]


async def running(caller: Caller) -> list[Violation]:
    """What is wrong with a daemon that has nothing to do: it must know of no job, and nor must its database."""
    unfinished = await caller.list(JOB_STATE_QUEUED, JOB_STATE_RUNNING)
    status = await caller.status()
    found = [Violation("phantom", f"job {job.id} is listed as unfinished while nothing is left") for job in unfinished]
    if status.queued or status.running:
        found.append(Violation("memory", f"{status.queued} queued and {status.running} running, and nothing is left"))
    stored = Store(caller.keeper.home.paths).unfinished
    return found + [Violation("phantom", f"job {job_id} is stored as unfinished") for job_id in sorted(stored)]


async def told_again(caller: Caller) -> None:
    """Ask for every job that was acknowledged; the journal finds what has changed."""
    for job in await caller.list():
        caller.journal.note_job(job, had_ended=job.id in caller.journal.ends, is_fresh=True)


def deaths(keeper: Keeper) -> list[Violation]:
    """Ends of the daemon that nobody wished for, and bugs by its own word."""
    found = [Violation("died by itself", str(death)) for death in keeper.deaths]
    found += [Violation("died by itself", f"a start ended with {why}") for why in keeper.refusals if why in _SILENT]
    found += [Violation("a bug", line) for line in keeper.home.log.splitlines() if '"event": "a bug"' in line]
    words = keeper.last_words
    found += [Violation("a bug", words[words.index(sign) :]) for sign in _BUGS if sign in words]
    return found


_SILENT = ("silence", "INTERNAL")
_BUGS = ("Task exception was never retrieved", "Future exception was never retrieved", "Fatal Python error")


def _trainings(connection: apsw.Connection) -> list[Training]:
    found = []
    for job_id, lora in connection.execute("SELECT job_id, lora FROM trainings").fetchall():
        losses: Any = connection.execute(
            "SELECT step, loss FROM training_steps WHERE job_id = ? ORDER BY step", (job_id,)
        ).fetchall()
        made: Any = connection.execute("SELECT sha256, path FROM loras WHERE id = ?", (lora,)).fetchall()
        sha256, path = made[0] if made else ("", b"")
        found.append(Training(str(job_id), losses, str(lora), sha256, Path(os.fsdecode(path))))
    return found


def _damaged(store: Store) -> Iterator[Violation]:
    if store.integrity != ["ok"]:
        yield Violation("damaged", f"integrity_check: {store.integrity[:3]}")
    if store.foreign_keys:
        yield Violation("damaged", f"foreign_key_check: {store.foreign_keys[:3]}")


def _jobs(store: Store, journal: Journal) -> Iterator[Violation]:
    """Every acknowledged job is there, once, as it was asked for."""
    rows = Counter(job.request_id for job in store.jobs.values())
    for request_id, job_id in journal.acknowledged.items():
        job = store.jobs.get(job_id)
        if job is None or job.request_id != request_id:
            yield Violation("lost", f"job {job_id} of request {request_id} was acknowledged and is not stored")
        elif rows[request_id] != 1:
            yield Violation("doubled", f"request {request_id} has {rows[request_id]} jobs")
        elif job.kind == "generate":
            asked = journal.asked[job_id].generate
            if (job.spec["prompt"], job.spec["seed"]) != (asked.prompt, asked.seed):
                yield Violation("told otherwise", f"job {job_id} is stored with another prompt or seed than was asked")


def _ends(store: Store, journal: Journal, is_ended: bool) -> Iterator[Violation]:
    """Every job has ended, rightly, and as its callers heard."""
    for job_id in store.unfinished if is_ended else ():
        yield Violation("not ended", f"job {job_id} is stored as {store.jobs[job_id].state}")
    for job in store.jobs.values():
        if job.id not in store.unfinished and not journal.allows(job.request_id, job.state):
            yield Violation("innocent", f"job {job.id} ended {job.state}: {job.reason} {job.message[:200]}")
    for job_id, end in journal.ends.items():
        job = store.jobs.get(job_id)
        if job is not None and (job.state, job.reason) != (end.state, end.reason):
            told, stored = f"{end.state} {end.reason}", f"{job.state} {job.reason}"
            yield Violation("told otherwise", f"job {job_id}: callers were told {told}, stored is {stored}")


def _images(store: Store, going: set[str]) -> Iterator[Violation]:
    """Rows, files and pixels are of one mind; of what is being deleted, the file goes first."""
    for (job_id, index), count in Counter((one.picture.job_id, one.picture.index) for one in store.images).items():
        if count != 1:
            yield Violation("doubled", f"job {job_id} has {count} images {index}")
    for row in store.images:
        job = store.jobs.get(row.picture.job_id)
        if row.id in going and not (store.paths.images_dir / row.file).exists():
            continue
        if job is not None and (why := _wrong(store.paths.images_dir / row.file, row, job)):
            yield Violation(*why)


def _wrong(path: Path, row: Row, job: Job) -> tuple[str, str] | None:
    name = f"image {row.id} ({row.picture.index} of job {job.id}, {job.state})"
    if not path.exists():
        return "torn", f"{name} has no file"
    data = path.read_bytes()
    if (hashlib.sha256(data).hexdigest(), len(data)) != (row.picture.sha256, row.size_bytes):
        return "torn", f"{name} is not the file that its row tells of"
    if row.picture.index not in job.wanted or row.picture.seed != job.spec["seed"] + row.picture.index:
        return "wrong picture", f"{name} is not one that was asked for"
    return None if _is_true(data, row.picture) else ("wrong picture", f"{name} has other pixels than its seed makes")


def _is_true(data: bytes, picture: Picture) -> bool:
    """The fake worker paints a picture in one colour, which its seed makes."""
    seed = picture.seed
    colour = (seed % 256, seed // 256 % 256, seed // 65536 % 256)
    with Image.open(io.BytesIO(data)) as image:
        extrema = image.convert("RGB").getextrema()
        slack = 0 if image.format == "PNG" else _LOSSY
    return all(
        abs(low - wanted) <= slack and abs(high - wanted) <= slack
        for (low, high), wanted in zip(extrema, colour, strict=True)  # type: ignore[misc, str-unpack]
    )


def _trained(store: Store) -> Iterator[Violation]:
    """A training that succeeded has every loss once, as its seed makes them, and its LoRA is whole."""
    for training in store.trainings:
        job = store.jobs[training.job_id]
        if job.state != SUCCEEDED:
            continue
        if training.losses != _true_losses(job.spec["seed"], job.spec["steps"]):
            yield Violation(
                "wrong losses", f"job {job.id} has {len(training.losses)} losses, or others than its seed's"
            )
        if not training.sha256 or not training.path.is_file():
            yield Violation("lost", f"job {job.id} succeeded, and its LoRA {training.lora!r} is not there")
        elif hashlib.sha256(training.path.read_bytes()).hexdigest() != training.sha256:
            yield Violation("torn", f"LoRA {training.lora} of job {job.id} is not the file that its row tells of")


def _true_losses(seed: int, steps: int) -> list[tuple[int, float]]:
    """The fake worker's: they follow from one another."""
    state, losses = hashlib.sha256(str(seed).encode()).digest(), []
    for step in range(1, steps + 1):
        state = hashlib.sha256(state).digest()
        losses.append((step, 1.0 / (1 + step) + state[0] / 2560))
    return losses


def _told(store: Store, journal: Journal) -> Iterator[Violation]:
    """Every image that a caller heard of is there, unless it was deleted; what was deleted is not, nor drawn again."""
    rows = {row.id: row for row in store.images}
    places = {(row.picture.job_id, row.picture.index): row.id for row in store.images}
    gone = journal.deleted | journal.maybe_deleted
    yield from _files_of_deleted(store.paths.images_dir, journal.deleted)
    for image_id, picture in journal.pictures.items():
        row, place = rows.get(image_id), (picture.job_id, picture.index)
        if row is None and image_id not in gone:
            yield Violation("lost", f"image {image_id} ({picture.index} of job {picture.job_id}) was told of")
        elif row is not None and row.picture != picture:
            yield Violation("told otherwise", f"image {image_id}: told was {picture}, stored is {row.picture}")
        if image_id in journal.deleted and place in places:
            again = "is back" if row is not None else f"was drawn again as {places[place]}"
            yield Violation("deleted is back", f"image {image_id} ({picture.index} of job {picture.job_id}) {again}")
    yield from _complete(
        store, [*places, *((journal.pictures[one].job_id, journal.pictures[one].index) for one in gone)]
    )
    yield from _shown(journal.ends, rows, gone)


def _files_of_deleted(folder: Path, deleted: set[str]) -> Iterator[Violation]:
    """Their pictures are nobody's any more, and lie nowhere."""
    for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
        if path.stem in deleted:
            yield Violation("deleted file is back", f"image {path.stem} was deleted, and {path.name} lies there")


def _complete(store: Store, places: Iterable[tuple[str, int]]) -> Iterator[Violation]:
    """A job that succeeded has all that was asked for. `places`: (job, index) of images that are or were there."""
    made: dict[str, set[int]] = {}
    for job_id, index in places:
        made.setdefault(job_id, set()).add(index)
    for job in store.jobs.values():
        if job.state == SUCCEEDED and job.kind == "generate" and made.get(job.id, set()) != job.wanted:
            there = sorted(made.get(job.id, ()))
            yield Violation("lost", f"job {job.id} succeeded with images {there} of {sorted(job.wanted)}")


def _shown(ends: dict[str, End], rows: dict[str, Row], gone: set[str]) -> Iterator[Violation]:
    """The images that came with a job's end are all that it has."""
    stored: dict[str, set[str]] = {}
    for row in rows.values():
        stored.setdefault(row.picture.job_id, set()).add(row.id)
    for job_id, end in ends.items():
        if set(end.pictures) - gone != stored.get(job_id, set()) - gone:
            told, there = len(end.pictures), len(stored.get(job_id, set()))
            yield Violation("told otherwise", f"job {job_id} ended {end.state} with {told} images, stored are {there}")


def _strays(store: Store) -> Iterator[Violation]:
    """Files that no row names, after a start has swept."""
    folder, known = store.paths.images_dir, {row.file for row in store.images}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.is_file() and path.name not in known and (path.suffix in _PICTURES or path.name.startswith(".")):
            yield Violation("stray file", str(path.relative_to(store.paths.data_dir)))


def summary(violations: list[Violation]) -> str:
    """How many of each kind, and the first of each."""
    if not violations:
        return "no violation"
    counts = Counter(one.kind for one in violations)
    firsts = {one.kind: one.what for one in reversed(violations)}
    return "; ".join(f"{kind} x{count} ({firsts[kind][:200]})" for kind, count in counts.most_common())


def main() -> int:
    data = Path(sys.argv[1])
    found = stopped(Paths(data / "config.toml", data, data, data), Journal())
    for violation in found:
        print(violation)
    print(summary(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
