"""What the daemon told its callers: the checker holds it to every word."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from craft_protos import jobs_pb2
from craft_protos.jobs_pb2 import JobState

SUCCEEDED, FAILED, CANCELLED = "SUCCEEDED", "FAILED", "CANCELLED"
_FINAL = {SUCCEEDED, FAILED, CANCELLED}


@dataclass(frozen=True)
class Violation:
    """Something that must never be. `kind` is what storms are counted by."""

    kind: str
    what: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.what[:1000]}"


@dataclass(frozen=True)
class Picture:
    """An image as a caller heard of it."""

    job_id: str
    index: int
    seed: int
    sha256: str


@dataclass(frozen=True)
class End:
    """How a job ended, as a caller heard of it; `pictures` by image id."""

    state: str
    reason: str
    message: str
    pictures: dict[str, Picture]


@dataclass
class Journal:
    """One for all callers of a daemon; `faults`: contradictions between what it said at one time and at another."""

    acknowledged: dict[str, str] = field(default_factory=dict)  # job id by request id
    asked: dict[str, jobs_pb2.CreateJobRequest] = field(default_factory=dict)  # by job id
    allowed: dict[str, frozenset[str]] = field(default_factory=dict)  # ends that are right, by request id
    ends: dict[str, End] = field(default_factory=dict)
    pictures: dict[str, Picture] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)  # DeleteImage was answered
    maybe_deleted: set[str] = field(default_factory=set)  # it was called, and no answer came
    faults: list[Violation] = field(default_factory=list)
    _heard: int = 0
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def copy(self) -> Journal:
        """As it is now."""
        return Journal(
            dict(self.acknowledged),
            dict(self.asked),
            dict(self.allowed),
            dict(self.ends),
            dict(self.pictures),
            set(self.deleted),
            set(self.maybe_deleted),
        )

    def tick(self) -> None:
        """Somebody has heard something."""
        self._heard += 1
        self._news.set()

    async def hear(self, more: int) -> None:
        """Until so many things more were heard: the clock of those who wait for a random moment."""
        until = self._heard + more
        while self._heard < until:
            self._news.clear()
            await self._news.wait()

    def expect(self, request_id: str, *states: str) -> None:
        """The only ends that are right for a job; without a word, it must succeed."""
        self.allowed[request_id] = frozenset(states)

    def allows(self, request_id: str, state: str) -> bool:
        return state in self.allowed.get(request_id, frozenset({SUCCEEDED}))

    def note_created(self, asked: jobs_pb2.CreateJobRequest, job: jobs_pb2.Job) -> None:
        """CreateJob was answered."""
        known = self.acknowledged.setdefault(asked.request_id, job.id)
        if known != job.id:
            self._fault("doubled", f"request {asked.request_id} made job {known}, then job {job.id}")
        if job.request_id != asked.request_id:
            self._fault("lost", f"request {asked.request_id} was answered with job {job.id} of {job.request_id}")
        self.asked[job.id] = asked
        self.note_job(job)

    def note_job(self, job: jobs_pb2.Job, *, had_ended: bool = False, is_fresh: bool = False) -> None:
        """Any answer or event that shows a job.

        `had_ended`: its end was known when this was asked for, so that nothing earlier may be shown.
        `is_fresh`: it was asked for after all deletions were answered.
        """
        self.tick()
        state = JobState.Name(job.state).removeprefix("JOB_STATE_")
        for image in job.images:
            self.note_picture(image.id, Picture(job.id, image.index, image.seed, image.sha256))
            if is_fresh and image.id in self.deleted:
                self._fault("deleted is back", f"image {image.id} of job {job.id} is shown")
        if state in _FINAL:
            pictures = {one.id: Picture(job.id, one.index, one.seed, one.sha256) for one in job.images}
            self._note_end(job.id, End(state, job.error.reason, job.error.message, pictures))
        elif had_ended:
            self._fault("changed", f"job {job.id} had ended {self.ends[job.id].state}, and is {state}")

    def note_picture(self, image_id: str, picture: Picture) -> None:
        self.tick()
        known = self.pictures.setdefault(image_id, picture)
        if known != picture:
            self._fault("changed", f"image {image_id} was {known}, then {picture}")

    def note_deleting(self, image_id: str) -> None:
        """DeleteImage is about to be called: from now on the image may be there or not."""
        self.maybe_deleted.add(image_id)
        self.tick()

    def note_deleted(self, image_id: str) -> None:
        """DeleteImage was answered."""
        self.deleted.add(image_id)
        self.tick()

    def note_finished_already(self, job: jobs_pb2.Job) -> None:
        """CancelJob said JOB_FINISHED, and then the job was asked for."""
        if JobState.Name(job.state).removeprefix("JOB_STATE_") not in _FINAL:
            self._fault("phantom", f"job {job.id} cannot be cancelled as it has finished, and is {job.state}")
        self.note_job(job)

    def note_cancelled(self, job: jobs_pb2.Job) -> None:
        """CancelJob was answered."""
        if job.state != jobs_pb2.JOB_STATE_CANCELLED:
            self._fault("told otherwise", f"CancelJob answered, and job {job.id} is {JobState.Name(job.state)}")
        self.note_job(job)

    def _note_end(self, job_id: str, end: End) -> None:
        known = self.ends.setdefault(job_id, end)
        if (known.state, known.reason) != (end.state, end.reason):
            self._fault("changed", f"job {job_id} ended {known.state} {known.reason}, then {end.state} {end.reason}")

    def _fault(self, kind: str, what: str) -> None:
        self.faults.append(Violation(kind, what))
